{{/* Names and labels. A name of a workload has at most 52 characters, because Kubernetes adds a hash of 11 to it. */}}

{{/* Services have this name, with the name of a component after it. */}}
{{- define "isthmus.fullname" -}}
{{- $name := include "isthmus.fullnameOfValues" . -}}
{{- if not (regexMatch "^[a-z]([a-z0-9-]*[a-z0-9])?$" $name) -}}
{{- fail (printf "%q cannot be the name of Services: expected a-z, 0-9 and -, with a letter first; set fullnameOverride" $name) -}}
{{- end -}}
{{- $name -}}
{{- end -}}

{{- define "isthmus.fullnameOfValues" -}}
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

{{/* Refuses labels that are already there: (dict "value" "commonLabels" "labels" LABELS "own" YAML-OF-THE-CHART). */}}
{{- define "isthmus.refuseOwnLabels" -}}
{{- $own := .own | fromYaml -}}
{{- range $name, $_ := .labels -}}
{{- if hasKey $own $name -}}
{{- fail (printf "%s: the chart sets the label %s itself; take another name" $.value $name) -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* Labels of objects. Those of pods and claims are the selector labels alone, so that a new version of a chart does not restart pods
or change claims that cannot be changed. */}}
{{- define "isthmus.labels" -}}
{{- $own := include "isthmus.ownLabels" . -}}
{{- include "isthmus.refuseOwnLabels" (dict "value" "commonLabels" "labels" .root.Values.commonLabels "own" $own) -}}
{{ $own }}
{{- with .root.Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- define "isthmus.ownLabels" -}}
{{ include "isthmus.selectorLabels" . }}
app.kubernetes.io/part-of: isthmus
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_" }}
{{- end -}}

{{/* Refuses external labels that are decided elsewhere: (dict "value" "scraper.externalLabels" "labels" LABELS "decided" NAMES-WITH-REASONS). */}}
{{- define "isthmus.refuseDecidedLabels" -}}
{{- range $name, $why := .decided -}}
{{- if hasKey ($.labels | default dict) $name -}}
{{- fail (printf "%s.%s: %s; remove it" $.value $name $why) -}}
{{- end -}}
{{- end -}}
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
