{{/* Names and labels. A name of a workload has at most 52 characters, because Kubernetes adds a hash of 11 to it. */}}

{{- define "isthmus.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 36 | trimSuffix "-" -}}
{{- else if contains (.Values.nameOverride | default .Chart.Name) .Release.Name -}}
{{- .Release.Name | trunc 36 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name (.Values.nameOverride | default .Chart.Name) | trunc 36 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{/* The name of the objects of a component: (dict "root" $ "component" "gateway"). */}}
{{- define "isthmus.componentName" -}}
{{- printf "%s-%s" (include "isthmus.fullname" .root) .component -}}
{{- end -}}

{{/* Labels that never change: selectors use these and no others. */}}
{{- define "isthmus.selectorLabels" -}}
app.kubernetes.io/name: {{ .root.Values.nameOverride | default .root.Chart.Name }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- end -}}

{{/* Labels of objects. Those of pods and claims are the selector labels alone, so that a new version of a chart does not restart pods
or change claims that cannot be changed. */}}
{{- define "isthmus.labels" -}}
{{ include "isthmus.selectorLabels" . }}
app.kubernetes.io/part-of: isthmus
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_" }}
{{- with .root.Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* The metadata of an object of a component: name and labels. */}}
{{- define "isthmus.metadata" -}}
name: {{ .name | default (include "isthmus.componentName" .) }}
labels:
  {{- include "isthmus.labels" . | nindent 2 }}
{{- end -}}

{{- define "isthmus.image" -}}
{{- $tag := .image.tag | default .default -}}
{{- if .image.digest -}}
{{- printf "%s@%s" .image.repository .image.digest -}}
{{- else -}}
{{- printf "%s:%s" .image.repository $tag -}}
{{- end -}}
{{- end -}}
