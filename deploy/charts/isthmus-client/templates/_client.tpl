{{/* Whether blocks are uploaded. */}}
{{- define "client.uploads" -}}
{{- if eq .Values.model "long-term" }}true{{ end -}}
{{- end -}}

{{/* gateway.yaml */}}
{{- define "client.gatewayConfig" -}}
{{- $names := list -}}
{{- range $replica := until (int .Values.scraper.replicas) -}}
{{- $names = append $names (printf "scraper-%d" $replica) -}}
{{- end -}}
{{- range .Values.gateway.extraTargets -}}
{{- if has .name $names -}}
{{- fail (printf "gateway.extraTargets: the name %s is used twice, and scrapers are scraper-0 to scraper-%d; take another name" .name (sub $.Values.scraper.replicas 1)) -}}
{{- end -}}
{{- $names = append $names .name -}}
{{- end -}}
{{- $scraper := include "isthmus.componentName" (dict "root" . "component" "scraper") -}}
role: cluster
data_dir: /var/lib/isthmus/gateway
identity:
  {{- with .Values.trustDomain }}
  trust_domain: {{ . }}
  {{- end }}
  cluster: {{ .Values.cluster | quote }}
  environment: {{ .Values.environment | quote }}
targets:
  {{- range $replica := until (int .Values.scraper.replicas) }}
  - name: scraper-{{ $replica }}
    address: {{ $scraper }}-{{ $replica }}.{{ $scraper }}:10901
  {{- end }}
  {{- with .Values.gateway.extraTargets }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- with .Values.gateway.dial }}
dial:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- if .Values.gateway.mesh.listen }}
listen: ":10943"
{{- end }}
transport: {{ .Values.gateway.transport }}
{{- with .Values.gateway.proxy }}
proxy: {{ . | quote }}
{{- end }}
{{- with .Values.gateway.policy }}
policy:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- if .Values.gateway.accessLog.enabled }}
access_log:
  file: /var/lib/isthmus/gateway/access.log
  max_size: {{ .Values.gateway.accessLog.maxSize }}
{{- end }}
{{- end -}}

{{/* prometheus.yml */}}
{{- define "client.scrapeConfig" -}}
{{- $decided := dict "cluster" "the value cluster decides it, and the certificate must agree" "environment" "the value environment decides it, and the certificate must agree" "replica" "the name of the pod decides it" -}}
{{- include "isthmus.refuseDecidedLabels" (dict "value" "scraper.externalLabels" "labels" .Values.scraper.externalLabels "decided" $decided) -}}
global:
  scrape_interval: {{ .Values.scraper.scrapeInterval }}
  external_labels:
    cluster: {{ .Values.cluster | quote }}
    environment: {{ .Values.environment | quote }}
    replica: ${POD_NAME}
    {{- with .Values.scraper.externalLabels }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
{{- if and .Values.scraper.rules (eq .Values.scraper.kind "prometheus") }}
rule_files:
  - /etc/prometheus/rules/*.yaml
{{- end }}
scrape_configs:
  {{- $jobs := list (list "gateway" 10942) (list "scraper" 10902) }}
  {{- if eq .Values.scraper.kind "prometheus" }}
  {{- $jobs = append $jobs (list "scraper" 9090 "prometheus") }}
  {{- end }}
  {{- if ((.Values.pushgateway).enabled) }}
  {{- $jobs = append $jobs (list "pushgateway" 9091) }}
  {{- end }}
  {{- range $job := $jobs }}
  {{- $component := index $job 0 }}
  - job_name: {{ include "isthmus.componentName" (dict "root" $ "component" (last $job | kindIs "string" | ternary (last $job) $component)) }}
    {{- if eq $component "pushgateway" }}
    honor_labels: true
    {{- end }}
    dns_sd_configs:
      - names:
          - {{ include "isthmus.componentName" (dict "root" $ "component" $component) }}
        type: A
        port: {{ index $job 1 }}
  {{- end }}
  {{- if .Values.scraper.kubernetes.enabled }}
  - job_name: kubernetes-pods
    kubernetes_sd_configs:
      - role: pod
        {{- if not (has "*" .Values.scraper.kubernetes.namespaces) }}
        namespaces:
          {{- if .Values.scraper.kubernetes.namespaces }}
          names:
            {{- toYaml .Values.scraper.kubernetes.namespaces | nindent 12 }}
          {{- else }}
          own_namespace: true
          {{- end }}
        {{- end }}
    relabel_configs:
      - source_labels: [__meta_kubernetes_pod_annotation_prometheus_io_scrape]
        regex: "true"
        action: keep
      - source_labels: [__meta_kubernetes_pod_annotation_prometheus_io_path]
        regex: (.+)
        target_label: __metrics_path__
      - source_labels: [__meta_kubernetes_pod_ip, __meta_kubernetes_pod_annotation_prometheus_io_port]
        separator: ":"
        regex: (.+:\d+)
        target_label: __address__
      - source_labels: [__meta_kubernetes_namespace]
        target_label: namespace
      - source_labels: [__meta_kubernetes_pod_name]
        target_label: pod
  {{- end }}
  {{- with .Values.scraper.scrapeConfigs }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end -}}
