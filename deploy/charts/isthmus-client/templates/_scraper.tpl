{{/* The containers of a scraper. */}}

{{- define "client.retention" -}}
{{- .values.retention | default (eq .root.Values.model "long-term" | ternary "1d" "15d") -}}
{{- end -}}

{{- define "client.prometheusContainer" -}}
{{- $values := .values.prometheus -}}
- name: prometheus
  image: {{ include "isthmus.image" (dict "image" $values.image "default" "latest") }}
  imagePullPolicy: {{ $values.image.pullPolicy }}
  args:
    {{- $own := include "client.prometheusArgs" . }}
    {{- include "isthmus.args" (dict "value" "scraper.prometheus.extraArgs" "own" $own "extra" $values.extraArgs) | nindent 4 }}
  env:
    {{- $own := include "isthmus.podName" . }}
    {{- include "isthmus.env" (dict "value" "scraper.extraEnv" "own" $own "extra" .values.extraEnv) | nindent 4 }}
  ports:
    - name: prometheus
      containerPort: 9090
      protocol: TCP
  {{- include "isthmus.probes" (dict "startup" 1800 "port" "prometheus") | nindent 2 }}
  {{- include "isthmus.resources" (dict "values" $values) | nindent 2 }}
  {{- include "isthmus.containerSecurity" . | nindent 2 }}
  volumeMounts:
    - name: data
      mountPath: /prometheus
    {{- include "client.scraperConfigMounts" . | nindent 4 }}
{{- end -}}

{{- define "client.prometheusArgs" -}}
- --config.file=/etc/prometheus/config/prometheus.yml
- --storage.tsdb.path=/prometheus
- --storage.tsdb.retention.time={{ include "client.retention" . }}
{{- if include "client.uploads" .root }}
# Blocks are uploaded as they are cut.
- --storage.tsdb.min-block-duration=2h
- --storage.tsdb.max-block-duration=2h
{{- end }}
- --web.listen-address=:9090
# The sidecar reloads the configuration when it changes.
- --web.enable-lifecycle
# For ${POD_NAME} in external_labels; Prometheus 3 always expands it.
- --enable-feature=expand-external-labels
{{- end -}}

{{- define "client.scraperConfigMounts" -}}
- name: config
  mountPath: /etc/prometheus/config
  readOnly: true
{{- if and .values.rules (eq .values.kind "prometheus") }}
- name: rules
  mountPath: /etc/prometheus/rules
  readOnly: true
{{- end }}
{{- end -}}

{{/* The sidecar, or the embedded scraper. */}}
{{- define "client.scraperContainer" -}}
{{- $prometheus := eq .values.kind "prometheus" -}}
{{- $uploads := include "client.uploads" .root -}}
- name: {{ $prometheus | ternary "sidecar" "scraper" }}
  {{- include "isthmus.isthmusImage" . | nindent 2 }}
  args:
    {{- $own := include "client.scraperArgs" . }}
    {{- include "isthmus.args" (dict "value" "scraper.extraArgs" "own" $own "extra" .values.extraArgs) | nindent 4 }}
  env:
    {{- $own := include "isthmus.podName" . }}
    {{- include "isthmus.env" (dict "value" "scraper.extraEnv" "own" $own "extra" .values.extraEnv) | nindent 4 }}
  ports:
    - name: http
      containerPort: 10902
      protocol: TCP
    - name: grpc
      containerPort: 10901
      protocol: TCP
  {{- include "isthmus.probes" (dict "startup" ($prometheus | ternary 120 1800)) | nindent 2 }}
  {{- include "isthmus.resources" . | nindent 2 }}
  {{- include "isthmus.containerSecurity" . | nindent 2 }}
  volumeMounts:
    - name: data
      mountPath: /prometheus
    {{- include "client.scraperConfigMounts" . | nindent 4 }}
    {{- if $uploads }}
    - name: objstore
      mountPath: /etc/isthmus/objstore
      readOnly: true
    {{- end }}
    {{- with .values.extraVolumeMounts }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
{{- end -}}

{{- define "client.scraperArgs" -}}
{{- if eq .values.kind "prometheus" -}}
- sidecar
- --prometheus.url=http://localhost:9090
- --tsdb.path=/prometheus
- --prometheus.ready_timeout=30m
- --reloader.config-file=/etc/prometheus/config/prometheus.yml
{{- if .values.rules }}
- --reloader.rule-dir=/etc/prometheus/rules
{{- end }}
{{- else -}}
- scrape
- --config.file=/etc/prometheus/config/prometheus.yml
- --data-dir=/prometheus
- --storage.tsdb.retention.time={{ include "client.retention" . }}
{{- end }}
{{- if include "client.uploads" .root }}
- --objstore.config-file=/etc/isthmus/objstore/objstore.yml
{{- end }}
- --grpc-address=:10901
{{ include "isthmus.commonArgs" (merge (dict "http" 10902) .) }}
{{- end -}}
