{{/* Parts of network policies. */}}

{{/* The begin of a policy of a component: (dict "root" $ "component" NAME). Its rules follow. */}}
{{- define "isthmus.networkPolicy" -}}
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata:
  {{- include "isthmus.metadata" . | nindent 2 }}
spec:
  podSelector:
    matchLabels:
      {{- include "isthmus.selectorLabels" . | nindent 6 }}
  policyTypes:
    - Ingress
    - Egress
{{- end -}}

{{/* The pods of a component of this release, as a peer of a rule. */}}
{{- define "isthmus.peer" -}}
- podSelector:
    matchLabels:
      {{- include "isthmus.selectorLabels" . | nindent 6 }}
{{- end -}}

{{/* Where metrics are scraped from: (dict "root" $ "port" 10902). */}}
{{- define "isthmus.monitoringIngress" -}}
{{- with .root.Values.networkPolicy.monitoring -}}
- from:
    {{- toYaml . | nindent 4 }}
  ports:
    - port: {{ $.port }}
      protocol: TCP
{{- end }}
{{- end -}}

{{/* Names are looked up. */}}
{{- define "isthmus.dnsEgress" -}}
- to:
    {{- toYaml .Values.networkPolicy.dns | nindent 4 }}
  ports:
    - port: 53
      protocol: UDP
    - port: 53
      protocol: TCP
{{- end -}}

{{/* The bucket, and the service that gives credentials for it (STS, or the metadata server of a node). */}}
{{- define "isthmus.bucketEgress" -}}
- to:
    {{- toYaml .Values.networkPolicy.bucket.to | nindent 4 }}
  ports:
    - port: {{ .Values.networkPolicy.bucket.port }}
      protocol: TCP
{{- with .Values.networkPolicy.sts.to }}
- to:
    {{- toYaml . | nindent 4 }}
  ports:
    - port: {{ $.Values.networkPolicy.sts.port }}
      protocol: TCP
{{- end }}
{{- end -}}
