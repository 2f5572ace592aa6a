{{/* Parts of pods. Each takes (dict "root" $ "component" NAME "values" VALUES-OF-THE-COMPONENT). */}}

{{/* The metadata of a pod. `checksum` is the text of its configuration: another text restarts the pods. */}}
{{- define "isthmus.podMetadata" -}}
labels:
  {{- $own := include "isthmus.selectorLabels" . }}
  {{- include "isthmus.refuseOwnLabels" (dict "value" (printf "podLabels of %s" .component) "labels" .values.podLabels "own" $own) }}
  {{- $own | nindent 2 }}
  {{- with .values.podLabels }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- if or .checksum .values.podAnnotations }}
annotations:
  {{- with .checksum }}
  checksum/config: {{ . | sha256sum }}
  {{- end }}
  {{- with .values.podAnnotations }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end }}
{{- end -}}

{{/* What all pods have: identity, confinement, placement and the time to stop. */}}
{{- define "isthmus.podSpec" -}}
serviceAccountName: {{ .account | default (include "isthmus.componentName" .) }}
automountServiceAccountToken: {{ .automount | default false }}
enableServiceLinks: false
securityContext:
  runAsNonRoot: true
  {{- with .root.Values.security.runAsUser }}
  runAsUser: {{ int64 . }}
  {{- end }}
  {{- with .root.Values.security.runAsGroup }}
  runAsGroup: {{ int64 . }}
  {{- end }}
  {{- with .root.Values.security.fsGroup }}
  fsGroup: {{ int64 . }}
  # Permissions of a volume are set once: keys in it stay readable by their owner alone.
  fsGroupChangePolicy: OnRootMismatch
  {{- end }}
  seccompProfile:
    type: RuntimeDefault
{{- with .root.Values.imagePullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .values.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with .values.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .values.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .values.affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- if gt (int .values.replicas) 1 }}
topologySpreadConstraints:
  {{- range $key := list "kubernetes.io/hostname" "topology.kubernetes.io/zone" }}
  - maxSkew: 1
    topologyKey: {{ $key }}
    whenUnsatisfiable: {{ $.root.Values.topologySpread.whenUnsatisfiable }}
    labelSelector:
      matchLabels:
        {{- include "isthmus.selectorLabels" $ | nindent 8 }}
  {{- end }}
{{- end }}
# The drain delay, the grace period of requests, and what a role needs to end.
terminationGracePeriodSeconds: {{ add .root.Values.shutdown.drainDelaySeconds .root.Values.shutdown.gracePeriodSeconds 15 }}
{{- end -}}

{{/* The confinement of a container: pod security `restricted`, and a root file system that cannot be written. */}}
{{- define "isthmus.containerSecurity" -}}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities:
    drop:
      - ALL
terminationMessagePolicy: FallbackToLogsOnError
{{- end -}}

{{/* The image of Isthmus. Its entry point is the program; `args` begins with the role. */}}
{{- define "isthmus.isthmusImage" -}}
image: {{ include "isthmus.image" (dict "image" .root.Values.image "default" .root.Chart.AppVersion) }}
imagePullPolicy: {{ .root.Values.image.pullPolicy }}
{{- end -}}

{{/* The probes of every role. A start may take `startup` seconds. A process that is only slow under load stays alive: it has four
minutes for an answer to the liveness probe. */}}
{{- define "isthmus.probes" -}}
startupProbe:
  httpGet:
    path: /-/healthy
    port: {{ .port | default "http" }}
  periodSeconds: 5
  timeoutSeconds: 5
  failureThreshold: {{ div .startup 5 }}
livenessProbe:
  httpGet:
    path: /-/healthy
    port: {{ .port | default "http" }}
  periodSeconds: 30
  timeoutSeconds: 15
  failureThreshold: 8
readinessProbe:
  httpGet:
    path: /-/ready
    port: {{ .port | default "http" }}
  periodSeconds: 5
  timeoutSeconds: 5
  failureThreshold: 3
{{- end -}}

{{- define "isthmus.resources" -}}
{{- with .values.resources -}}
resources:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{/* The name of the pod, for arguments. */}}
{{- define "isthmus.podName" -}}
- name: POD_NAME
  valueFrom:
    fieldRef:
      fieldPath: metadata.name
{{- end -}}

{{/* All variables of a container: those of the chart, and then those of the value `extraEnv`, which may not replace one. Takes (dict
"value" "store.extraEnv" "own" LINES "extra" LIST). */}}
{{- define "isthmus.env" -}}
{{- range $own := .own | fromYamlArray -}}
{{- range $.extra -}}
{{- if eq .name $own.name -}}
{{- fail (printf "%s: the chart sets the variable %s itself; remove it" $.value .name) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{ .own }}
{{- with .extra }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* A file of a Secret as a volume; the Secret must exist. */}}
{{- define "isthmus.secretVolume" -}}
- name: {{ .name }}
  secret:
    secretName: {{ .secret }}
    items:
      - key: {{ .key }}
        path: {{ .path }}
{{- end -}}

{{/* For replicas that are read over their StoreAPI. The reader asks each store every 5 s whether it can be read, so a pod that has been
ready for longer is read before the next one is replaced. */}}
{{- define "isthmus.minReadySeconds" -}}
minReadySeconds: 8
{{- end -}}

{{/* The claim of a StatefulSet, or an empty folder without persistence. A gateway without one would lose its key with its pod. */}}
{{- define "isthmus.claimTemplates" -}}
{{- if and (eq .component "gateway") (not .values.persistence.enabled) -}}
{{- fail "gateway.persistence.enabled: must be true: the certificate and its key are in the claim, and a token is used only once" -}}
{{- end -}}
{{- if .values.persistence.enabled -}}
volumeClaimTemplates:
  - apiVersion: v1
    kind: PersistentVolumeClaim
    metadata:
      name: data
      labels:
        {{- include "isthmus.selectorLabels" . | nindent 8 }}
    spec:
      accessModes:
        - ReadWriteOnce
      {{- with .values.persistence.storageClassName }}
      storageClassName: {{ . | quote }}
      {{- end }}
      resources:
        requests:
          storage: {{ .values.persistence.size }}
{{- end }}
{{- end -}}

{{- define "isthmus.dataVolume" -}}
{{- if not .values.persistence.enabled -}}
- name: data
  emptyDir: {}
{{- end }}
{{- end -}}
