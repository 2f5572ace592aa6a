{{/* Arguments of containers. */}}

{{/* The arguments of every role; `http` is the port. */}}
{{- define "isthmus.commonArgs" -}}
{{- $stop := .root.Values.shutdown -}}
- --http-address=:{{ .http }}
- --http-grace-period={{ $stop.gracePeriodSeconds }}s
- --grpc-grace-period={{ $stop.gracePeriodSeconds }}s
- --drain-delay={{ $stop.drainDelaySeconds }}s
- --log.level={{ .root.Values.log.level }}
- --log.format={{ .root.Values.log.format }}
{{- end -}}

{{/* All arguments of a container: those of the chart, and then those of the value `extraArgs`. A flag that a program takes only once
is refused there if the chart sets it: the pod would not start. Takes (dict "value" "query.extraArgs" "own" LINES "extra" LIST). */}}
{{- define "isthmus.args" -}}
{{- $repeatable := include "isthmus.repeatableFlags" . | fromYamlArray -}}
{{- $values := include "isthmus.valuesOfFlags" . | fromYaml -}}
{{- $own := dict -}}
{{- range .own | fromYamlArray -}}
{{- $_ := set $own (include "isthmus.flagKey" .) (splitList "=" . | first) -}}
{{- end -}}
{{- range .extra -}}
{{- $flag := get $own (include "isthmus.flagKey" .) -}}
{{- if and $flag (not (has $flag $repeatable)) -}}
{{- $remedy := hasKey $values $flag | ternary (printf "remove it, and use the value %s" (get $values $flag)) "remove it" -}}
{{- fail (printf "%s: %q: the chart sets %s itself; %s" $.value . $flag $remedy) -}}
{{- end -}}
{{- end -}}
{{ .own }}
{{- range .extra }}
- {{ . | quote }}
{{- end }}
{{- end -}}

{{/* The same for all arguments that set the same: --NAME=x, --no-NAME, --NAME-file=x, and another name of the embedded scraper. */}}
{{- define "isthmus.flagKey" -}}
{{- splitList "=" . | first | replace "--no-" "--" | trimSuffix "-file" | replace "--storage.tsdb.path" "--data-dir" -}}
{{- end -}}

{{- define "isthmus.repeatableFlags" -}}
- --alert.label-drop
- --alertmanagers.url
- --deduplication.replica-label
- --enable-feature
- --endpoint
- --endpoint-group-strict
- --endpoint-strict
- --gateway
- --label
- --query
- --query.replica-label
- --reloader.rule-dir
- --rule-file
- --web.listen-address
{{- end -}}

{{/* Flags that have a value of their own. */}}
{{- define "isthmus.valuesOfFlags" -}}
--alert.query-url: query.externalUrl
--alertmanagers.config-file: ruler.alertmanagersConfig.existingSecret
--compact.concurrency: compactor.concurrency
--drain-delay: shutdown.drainDelaySeconds
--eval-interval: ruler.evaluationInterval
--grpc-grace-period: shutdown.gracePeriodSeconds
--http-grace-period: shutdown.gracePeriodSeconds
--index-cache.config-file: store.indexCache.existingSecret
--log.format: log.format
--log.level: log.level
--max-time: store.timePartitions
--min-time: store.timePartitions
--objstore.config-file: objectStorage.existingSecret
--query.auto-downsampling: query.autoDownsampling
--retention.resolution-1h: compactor.retention.oneHour
--retention.resolution-5m: compactor.retention.fiveMinutes
--retention.resolution-raw: compactor.retention.raw
--selector.relabel-config: store.shards
--storage.tsdb.retention.time: scraper.retention
--store.caching-bucket.config-file: store.cachingBucket.existingSecret
--store.max-memory: store.maxMemory
--tsdb.retention: ruler.retention
{{- end -}}
