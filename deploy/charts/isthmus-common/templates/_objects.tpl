{{/* Whole objects. Each takes (dict "root" $ "component" NAME "values" VALUES-OF-THE-COMPONENT). */}}

{{- define "isthmus.serviceAccount" -}}
apiVersion: v1
kind: ServiceAccount
metadata:
  {{- include "isthmus.metadata" . | nindent 2 }}
  {{- with (.values.serviceAccount | default dict).annotations }}
  annotations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
automountServiceAccountToken: false
{{- end -}}

{{/* A budget for voluntary disruptions; none at one replica, where it would only block the drain of a node. */}}
{{- define "isthmus.disruptionBudget" -}}
{{- if gt (int .values.replicas) 1 }}
---
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata:
  {{- include "isthmus.metadata" . | nindent 2 }}
spec:
  maxUnavailable: {{ .values.podDisruptionBudget.maxUnavailable }}
  selector:
    matchLabels:
      {{- include "isthmus.selectorLabels" . | nindent 6 }}
{{- end }}
{{- end -}}

{{/* A headless Service: DNS has the address of each pod, also of those that are not ready, so that a missing one is known. `ports` is a
list of (dict "name" .. "port" ..). */}}
{{- define "isthmus.headlessService" -}}
apiVersion: v1
kind: Service
metadata:
  {{- include "isthmus.metadata" . | nindent 2 }}
spec:
  clusterIP: None
  publishNotReadyAddresses: true
  selector:
    {{- include "isthmus.selectorLabels" . | nindent 4 }}
  {{- include "isthmus.servicePorts" . | nindent 2 }}
{{- end -}}

{{- define "isthmus.servicePorts" -}}
ports:
  {{- range .ports }}
  - name: {{ .name }}
    port: {{ .port }}
    targetPort: {{ .name }}
    protocol: TCP
    {{- if has .name (list "grpc" "http") }}
    appProtocol: {{ .name }}
    {{- end }}
  {{- end }}
{{- end -}}

{{/* The Service of the mesh port: UDP and TCP of one LoadBalancer, two of them, or TCP alone. */}}
{{- define "isthmus.meshService" -}}
{{- $mesh := .values.mesh.service -}}
{{- $name := printf "%s-mesh" (include "isthmus.componentName" .) -}}
{{- $services := list (dict "name" $name "protocols" (list "UDP" "TCP")) -}}
{{- if eq $mesh.protocols "separate" -}}
{{- $services = list (dict "name" (printf "%s-udp" $name) "protocols" (list "UDP")) (dict "name" (printf "%s-tcp" $name) "protocols" (list "TCP")) -}}
{{- else if eq $mesh.protocols "tcp" -}}
{{- $services = list (dict "name" $name "protocols" (list "TCP")) -}}
{{- end -}}
{{- range $service := $services }}
---
apiVersion: v1
kind: Service
metadata:
  {{- include "isthmus.metadata" (merge (dict "name" $service.name) $) | nindent 2 }}
  {{- with $mesh.annotations }}
  annotations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
spec:
  type: {{ $mesh.type }}
  {{- if ne $mesh.type "ClusterIP" }}
  # Keeps the source addresses of clients, which limits by network and the audit log need.
  externalTrafficPolicy: {{ $mesh.externalTrafficPolicy }}
  {{- end }}
  {{- if eq $mesh.type "LoadBalancer" }}
  {{- with $mesh.loadBalancerClass }}
  loadBalancerClass: {{ . }}
  {{- end }}
  {{- with $mesh.loadBalancerIP }}
  loadBalancerIP: {{ . }}
  {{- end }}
  {{- with $mesh.loadBalancerSourceRanges }}
  loadBalancerSourceRanges:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- end }}
  selector:
    {{- include "isthmus.selectorLabels" $ | nindent 4 }}
  ports:
    {{- range $protocol := $service.protocols }}
    - name: mesh-{{ lower $protocol }}
      port: 10943
      targetPort: mesh-{{ lower $protocol }}
      protocol: {{ $protocol }}
      {{- if and (eq $mesh.type "NodePort") $mesh.nodePort }}
      nodePort: {{ $mesh.nodePort }}
      {{- end }}
    {{- end }}
{{- end }}
{{- end -}}

{{/* The monitor of all Services of a release that have a port `http`. */}}
{{- define "isthmus.serviceMonitor" -}}
{{- $monitor := .Values.serviceMonitor | default dict -}}
{{- if $monitor.enabled }}
apiVersion: monitoring.coreos.com/v1
kind: ServiceMonitor
metadata:
  name: {{ include "isthmus.fullname" . }}
  labels:
    {{- include "isthmus.labels" (dict "root" . "component" "monitoring") | nindent 4 }}
    {{- with $monitor.labels }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
spec:
  selector:
    matchLabels:
      app.kubernetes.io/name: {{ .Values.nameOverride | default .Chart.Name }}
      app.kubernetes.io/instance: {{ .Release.Name }}
  endpoints:
    - port: http
      path: /metrics
      {{- with $monitor.interval }}
      interval: {{ . }}
      {{- end }}
      relabelings:
        - sourceLabels:
            - __meta_kubernetes_namespace
            - __meta_kubernetes_pod_name
          separator: /
          targetLabel: instance
          action: replace
{{- end }}
{{- end -}}
