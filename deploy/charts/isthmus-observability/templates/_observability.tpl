{{/* gateway.yaml */}}
{{- define "observability.gatewayConfig" -}}
role: observability
data_dir: /var/lib/isthmus/gateway
pki:
  state: /var/lib/isthmus/pki
  issuer_dir: /etc/isthmus/issuer
  trust_domain: {{ .Values.trustDomain }}
  cluster: {{ .Values.cluster }}
  leaf_lifetime: {{ .Values.gateway.leafLifetime }}
listen: ":10943"
{{- with .Values.gateway.clusters }}
clusters:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.gateway.plainPorts }}
targets:
  {{- range . }}
  - name: {{ .name }}
    listen: ":{{ .port }}"
  {{- end }}
{{- end }}
{{- end -}}

{{/* Names of the stores, one on each line: store-PART-SHARD. */}}
{{- define "observability.storeParts" -}}
{{- $parts := .Values.store.timePartitions | default (list (dict "name" "all")) -}}
{{- $stores := list -}}
{{- $names := list -}}
{{- range $part := $parts -}}
{{- if has $part.name $names -}}
{{- fail (printf "store.timePartitions: the name %s is used twice; take another name" $part.name) -}}
{{- end -}}
{{- $names = append $names $part.name -}}
{{- range $shard := until (int $.Values.store.shards) -}}
{{- $stores = append $stores (dict "component" (printf "store-%s-%d" $part.name $shard) "part" $part "shard" $shard) -}}
{{- end -}}
{{- end -}}
{{- dict "stores" $stores | toJson -}}
{{- end -}}

{{/* The blocks of one shard. */}}
{{- define "observability.shardRelabeling" -}}
- action: hashmod
  source_labels: [__block_id]
  target_label: shard
  modulus: {{ .shards }}
- action: keep
  source_labels: [shard]
  regex: {{ .shard | quote }}
{{- end -}}

{{- define "observability.uploadsRules" -}}
{{- if and .Values.ruler.upload .Values.objectStorage.existingSecret }}true{{ end -}}
{{- end -}}

{{- define "observability.objstoreVolume" -}}
{{- include "isthmus.secretVolume" (dict "name" "objstore" "secret" .Values.objectStorage.existingSecret "key" .Values.objectStorage.key "path" "objstore.yml") -}}
{{- end -}}

{{- define "observability.objstoreMount" -}}
- name: objstore
  mountPath: /etc/isthmus/objstore
  readOnly: true
{{- end -}}
