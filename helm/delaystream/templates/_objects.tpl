{{/* What all objects have: labels, annotations, a namespace. */}}

{{/* The namespace of the objects. */}}
{{- define "delaystream.namespace" -}}
{{- default .Release.Namespace .Values.namespaceOverride -}}
{{- end -}}

{{/* The line of an object's namespace. Helm has the release's added by itself. */}}
{{- define "delaystream.namespaced" -}}
{{- with .Values.namespaceOverride }}
  namespace: {{ . }}
{{- end }}
{{- end -}}

{{/* The entries of one map after another, as YAML: of two with one key the first stays. The first map is YAML already, and stays as it is. */}}
{{- define "delaystream.merged" -}}
{{- $own := index . 0 | trim -}}
{{- $taken := fromYaml $own -}}
{{- $further := dict -}}
{{- range rest . -}}
{{- range $key, $value := . -}}
{{- if not (hasKey $taken $key) -}}
{{- $_ := set $taken $key $value -}}
{{- $_ := set $further $key $value -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- $own -}}
{{- if and $own $further }}{{ "\n" }}{{ end -}}
{{- if $further }}{{ toYaml $further }}{{ end -}}
{{- end -}}

{{/* All labels of an object: of the context, its own ones, and the common ones. */}}
{{- define "delaystream.allLabels" -}}
{{- $context := index . 0 -}}
{{- include "delaystream.merged" (list (include "delaystream.labels" $context) (index . 1) $context.Values.commonLabels) -}}
{{- end -}}

{{/* All annotations of an object: its own ones, and the common ones; empty where there are none. */}}
{{- define "delaystream.allAnnotations" -}}
{{- include "delaystream.merged" (list "" (index . 1) (index . 0).Values.commonAnnotations) -}}
{{- end -}}

{{/* A duration of Prometheus in milliseconds. */}}
{{- define "delaystream.milliseconds" -}}
{{- $total := 0 -}}
{{- $units := dict "ms" 1 "s" 1000 "m" 60000 "h" 3600000 -}}
{{- range regexFindAll "[0-9]+(ms|s|m|h)" . -1 -}}
{{- $total = add $total (mul (regexFind "[0-9]+" . | int64) (regexFind "[a-z]+" . | get $units)) -}}
{{- end -}}
{{- $total -}}
{{- end -}}

{{/* How a target is scraped, of a monitor: its values, and their path. */}}
{{- define "delaystream.scrape" -}}
{{- $monitor := index . 0 -}}
interval: {{ $monitor.interval }}
{{- with $monitor.scrapeTimeout }}
{{- if gt (include "delaystream.milliseconds" . | int64) (include "delaystream.milliseconds" $monitor.interval | int64) }}
{{- fail (printf "%s.scrapeTimeout (%s) is longer than %s.interval (%s), and the Prometheus operator refuses that." (index $ 1) . (index $ 1) $monitor.interval) }}
{{- end }}
scrapeTimeout: {{ . }}
{{- end }}
{{- with $monitor.relabelings }}
relabelings:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $monitor.metricRelabelings }}
metricRelabelings:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{/* The bounds of a disruption budget: its values, and their path. */}}
{{- define "delaystream.budget" -}}
{{- $budget := index . 0 -}}
{{- $min := not (kindIs "invalid" $budget.minAvailable) -}}
{{- $max := not (kindIs "invalid" $budget.maxUnavailable) -}}
{{- if and $min $max -}}
{{- fail (printf "%s has both minAvailable and maxUnavailable, and Kubernetes refuses that: set one of them to null." (index . 1)) -}}
{{- end -}}
{{- if not (or $min $max) -}}
{{- fail (printf "%s needs minAvailable or maxUnavailable." (index . 1)) -}}
{{- end -}}
{{- if $min -}}
minAvailable: {{ include "delaystream.value" $budget.minAvailable }}
{{- else -}}
maxUnavailable: {{ include "delaystream.value" $budget.maxUnavailable }}
{{- end }}
unhealthyPodEvictionPolicy: {{ $budget.unhealthyPodEvictionPolicy }}
{{- end -}}
