{{- define "observability.storeArgs" -}}
{{- $values := .root.Values.store -}}
- --store.max-memory={{ $values.maxMemory }}
{{- with .store.part.minTime }}
- --min-time={{ . }}
{{- end }}
{{- with .store.part.maxTime }}
- --max-time={{ . }}
{{- end }}
{{- if gt (int $values.shards) 1 }}
- |-
  --selector.relabel-config=
  {{- include "observability.shardRelabeling" (dict "shards" $values.shards "shard" .store.shard) | nindent 2 }}
{{- end }}
{{- if $values.indexCache.existingSecret }}
- --index-cache.config-file=/etc/isthmus/index-cache/cache.yml
{{- end }}
{{- if $values.cachingBucket.existingSecret }}
- --store.caching-bucket.config-file=/etc/isthmus/caching-bucket/cache.yml
{{- end }}
{{- end -}}

{{- define "observability.storeMounts" -}}
{{- $mounts := list -}}
{{- range $name, $cache := dict "index-cache" .Values.store.indexCache "caching-bucket" .Values.store.cachingBucket -}}
{{- if $cache.existingSecret -}}
{{- $mounts = append $mounts (dict "name" $name "mountPath" (printf "/etc/isthmus/%s" $name) "readOnly" true) -}}
{{- end -}}
{{- end -}}
{{- with $mounts -}}{{ toYaml . }}{{- end -}}
{{- end -}}

{{- define "observability.storeVolumes" -}}
{{- $volumes := list -}}
{{- range $name, $cache := dict "index-cache" .Values.store.indexCache "caching-bucket" .Values.store.cachingBucket -}}
{{- if $cache.existingSecret -}}
{{- $volumes = append $volumes (include "isthmus.secretVolume" (dict "name" $name "secret" $cache.existingSecret "key" $cache.key "path" "cache.yml")) -}}
{{- end -}}
{{- end -}}
{{- join "\n" $volumes -}}
{{- end -}}
