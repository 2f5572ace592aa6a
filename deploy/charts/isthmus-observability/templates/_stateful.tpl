{{/* A StatefulSet of a role that keeps data, with its headless Service and its disruption budget. Takes (dict "root" $
"component" NAME "role" ROLE "values" VALUES "args" LINES "startup" SECONDS "checksum" TEXT "objstore" BOOL "mounts" LINES "volumes" LINES). */}}
{{- define "observability.stateful" -}}
{{ include "isthmus.headlessService" (merge (dict "ports" (list (dict "name" "http" "port" 10902) (dict "name" "grpc" "port" 10901))) .) }}
---
apiVersion: apps/v1
kind: StatefulSet
metadata:
  {{- include "isthmus.metadata" . | nindent 2 }}
spec:
  serviceName: {{ include "isthmus.componentName" . }}
  replicas: {{ .values.replicas }}
  podManagementPolicy: Parallel
  {{- include "isthmus.minReadySeconds" . | nindent 2 }}
  selector:
    matchLabels:
      {{- include "isthmus.selectorLabels" . | nindent 6 }}
  template:
    metadata:
      {{- include "isthmus.podMetadata" . | nindent 6 }}
    spec:
      {{- include "isthmus.podSpec" . | nindent 6 }}
      containers:
        - name: {{ .role }}
          {{- include "isthmus.isthmusImage" . | nindent 10 }}
          args:
            {{- $own := include "observability.statefulArgs" . }}
            {{- include "isthmus.args" (dict "value" (printf "%s.extraArgs" .role) "own" $own "extra" .values.extraArgs) | nindent 12 }}
          env:
            {{- $own := include "isthmus.podName" . }}
            {{- include "isthmus.env" (dict "value" (printf "%s.extraEnv" .role) "own" $own "extra" .values.extraEnv) | nindent 12 }}
          ports:
            - name: http
              containerPort: 10902
              protocol: TCP
            - name: grpc
              containerPort: 10901
              protocol: TCP
          {{- include "isthmus.probes" (dict "startup" .startup) | nindent 10 }}
          {{- include "isthmus.resources" . | nindent 10 }}
          {{- include "isthmus.containerSecurity" . | nindent 10 }}
          volumeMounts:
            - name: data
              mountPath: /var/lib/isthmus
            {{- if .objstore }}
            {{- include "observability.objstoreMount" . | nindent 12 }}
            {{- end }}
            {{- with .mounts }}{{ . | nindent 12 }}{{ end }}
            {{- with .values.extraVolumeMounts }}
            {{- toYaml . | nindent 12 }}
            {{- end }}
      {{- $volumes := include "observability.volumes" . }}
      {{- with $volumes }}
      volumes:
        {{- . | nindent 8 }}
      {{- end }}
  {{- with include "isthmus.claimTemplates" . }}{{ . | nindent 2 }}{{ end }}
{{- include "isthmus.disruptionBudget" . }}
{{- end -}}

{{- define "observability.statefulArgs" -}}
- {{ .command }}
- --data-dir=/var/lib/isthmus/{{ .role }}
{{- if .objstore }}
- --objstore.config-file=/etc/isthmus/objstore/objstore.yml
{{- end }}
{{ .args }}
- --grpc-address=:10901
{{ include "isthmus.commonArgs" (merge (dict "http" 10902) .) }}
{{- end -}}

{{- define "observability.volumes" -}}
{{- $parts := list -}}
{{- if .objstore -}}
{{- $parts = append $parts (include "observability.objstoreVolume" .root) -}}
{{- end -}}
{{- with .volumes -}}
{{- $parts = append $parts . -}}
{{- end -}}
{{- with include "isthmus.dataVolume" . -}}
{{- $parts = append $parts . -}}
{{- end -}}
{{- with .values.extraVolumes -}}
{{- $parts = append $parts (toYaml .) -}}
{{- end -}}
{{- join "\n" $parts -}}
{{- end -}}
