{{/* The rule files of the chart and of the values. */}}
{{- define "observability.rules" -}}
{{- $rules := dict -}}
{{- if .Values.ruler.shippedRules -}}
{{- $_ := set $rules "isthmus.yaml" (.Files.Get "rules/isthmus.yaml") -}}
{{- end -}}
{{- toYaml (merge $rules .Values.ruler.rules) -}}
{{- end -}}

{{- define "observability.rulerArgs" -}}
{{- $values := .Values.ruler -}}
{{- include "isthmus.refuseDecidedLabels" (dict "value" "ruler.externalLabels" "labels" $values.externalLabels "decided" (dict "replica" "the name of the pod decides it")) -}}
- --query=http://{{ include "isthmus.componentName" (dict "root" . "component" "query") }}:10902
- --rule-file=/etc/isthmus/rules/*/*.yaml
{{- range $name, $value := $values.externalLabels }}
- {{ printf "--label=%s=%q" $name $value | toYaml }}
{{- end }}
- --label=replica="$(POD_NAME)"
- --alert.label-drop=replica
- --eval-interval={{ $values.evaluationInterval }}
- --tsdb.retention={{ $values.retention }}
{{- range $values.alertmanagers }}
- --alertmanagers.url={{ . }}
{{- end }}
{{- if $values.alertmanagersConfig.existingSecret }}
- --alertmanagers.config-file=/etc/isthmus/alertmanagers/alertmanagers.yml
{{- end }}
{{- with .Values.query.externalUrl }}
- --alert.query-url={{ . }}
{{- end }}
{{- end -}}

{{- define "observability.rulerMounts" -}}
- name: rules
  mountPath: /etc/isthmus/rules/chart
  readOnly: true
{{- range .Values.ruler.existingConfigMaps }}
- name: rules-{{ . }}
  mountPath: /etc/isthmus/rules/{{ . }}
  readOnly: true
{{- end }}
{{- if .Values.ruler.alertmanagersConfig.existingSecret }}
- name: alertmanagers
  mountPath: /etc/isthmus/alertmanagers
  readOnly: true
{{- end }}
{{- end -}}

{{- define "observability.rulerVolumes" -}}
- name: rules
  configMap:
    name: {{ include "isthmus.componentName" (dict "root" . "component" "ruler") }}
{{- range .Values.ruler.existingConfigMaps }}
- name: rules-{{ . }}
  configMap:
    name: {{ . }}
{{- end }}
{{- with .Values.ruler.alertmanagersConfig }}
{{- if .existingSecret }}
{{ include "isthmus.secretVolume" (dict "name" "alertmanagers" "secret" .existingSecret "key" .key "path" "alertmanagers.yml") }}
{{- end }}
{{- end }}
{{- end -}}
