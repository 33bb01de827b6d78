{{/* What pods are made of. The context is the chart's, or a console's (`_console.tpl`), whose values stand in the same places. */}}

{{/* The image, with the registry that the whole release has, or its own. Nobody pulls by accident what somebody else calls `delaystream`. */}}
{{- define "delaystream.image" -}}
{{- $image := .Values.image -}}
{{- $shared := default "" .Values.global.imageRegistry -}}
{{- $first := splitList "/" $image.repository | first -}}
{{- $named := and (contains "/" $image.repository) (or (contains "." $first) (contains ":" $first) (eq $first "localhost")) -}}
{{- $name := $image.repository -}}
{{- if and $named $image.registry -}}
{{- fail (printf "image.registry is %s, and image.repository names a registry, too: %s. Leave one of them out." $image.registry $image.repository) -}}
{{- end -}}
{{- if and $named $shared -}}
{{- $name = trimPrefix (printf "%s/" $first) $image.repository -}}
{{- end -}}
{{- with default $image.registry $shared -}}
{{- $name = printf "%s/%s" . $name -}}
{{- end -}}
{{- $host := splitList "/" $name | first -}}
{{- if not (and (contains "/" $name) (or (contains "." $host) (contains ":" $host) (eq $host "localhost"))) -}}
{{- fail (printf "image %s names no registry: set image.registry, or global.imageRegistry, to the one that you push the image to, such as registry.example.com. (An image that is on the nodes already: docker.io/library.)" $name) -}}
{{- end -}}
{{- if $image.digest -}}
{{ $name }}@{{ $image.digest }}
{{- else -}}
{{ $name }}:{{ default .Chart.AppVersion $image.tag }}
{{- end -}}
{{- end -}}

{{/* The field imagePullSecrets of a pod; empty where there are none. */}}
{{- define "delaystream.pullSecrets" -}}
{{- $names := .Values.image.pullSecrets -}}
{{- range .Values.global.imagePullSecrets -}}
{{- $names = append $names (kindIs "map" . | ternary (get (kindIs "map" . | ternary . dict) "name") .) -}}
{{- end -}}
{{- with uniq $names -}}
imagePullSecrets:
  {{- range . }}
  - name: {{ . }}
  {{- end }}
{{- end -}}
{{- end -}}

{{/* Fields that all pods of the chart have alike; empty where nothing is set. */}}
{{- define "delaystream.surroundings" -}}
{{- $fields := dict -}}
{{- $values := .Values -}}
{{- range $name := list "schedulerName" "runtimeClassName" "hostAliases" "dnsPolicy" "dnsConfig" -}}
{{- with get $values $name -}}
{{- $_ := set $fields $name . -}}
{{- end -}}
{{- end -}}
{{- with $fields -}}
{{- toYaml . -}}
{{- end -}}
{{- end -}}

{{/* Annotations of a pod: the context, and the chart's own as pairs in their order. People's own win. */}}
{{- define "delaystream.podAnnotations" -}}
{{- $context := index . 0 -}}
{{- $given := $context.Values.podAnnotations -}}
{{- $own := list -}}
{{- range concat (index . 1) (include "delaystream.checksums" $context | fromJsonArray) -}}
{{- if not (hasKey $given (first .)) -}}
{{- $own = append $own (dict (first .) (last .) | toYaml) -}}
{{- end -}}
{{- end -}}
{{- include "delaystream.merged" (list (join "\n" $own) $given) -}}
{{- end -}}

{{/* Pairs of annotations that change with the secrets and config maps that a pod reads when it starts, as JSON. */}}
{{- define "delaystream.checksums" -}}
{{- $pairs := list -}}
{{- if .Values.checksums.enabled -}}
{{- $names := dict "Secret" list "ConfigMap" list -}}
{{- $secrets := list .Values.kafka.tls.authority.existingSecret .Values.kafka.tls.client.existingSecret .Values.kafka.sasl.existingSecret -}}
{{- $secrets = get . "secrets" | default list | concat $secrets -}}
{{- $maps := list -}}
{{- range .Values.extraEnv -}}
{{- with .valueFrom -}}
{{- with .secretKeyRef -}}{{- $secrets = append $secrets .name -}}{{- end -}}
{{- with .configMapKeyRef -}}{{- $maps = append $maps .name -}}{{- end -}}
{{- end -}}
{{- end -}}
{{- range .Values.envFrom -}}
{{- with .secretRef -}}{{- $secrets = append $secrets .name -}}{{- end -}}
{{- with .configMapRef -}}{{- $maps = append $maps .name -}}{{- end -}}
{{- end -}}
{{- range .Values.extraVolumes -}}
{{- $sources := list . -}}
{{- with .projected -}}{{- $sources = .sources -}}{{- end -}}
{{- range $sources -}}
{{- with .secret -}}{{- $secrets = append $secrets (default .name .secretName) -}}{{- end -}}
{{- with .configMap -}}{{- $maps = append $maps .name -}}{{- end -}}
{{- end -}}
{{- end -}}
{{- $namespace := include "delaystream.namespace" . -}}
{{- range list (list "secrets" "Secret" $secrets) (list "config-maps" "ConfigMap" $maps) -}}
{{- $kind := index . 1 -}}
{{- $content := dict -}}
{{- range index . 2 | compact | uniq -}}
{{- with lookup "v1" $kind $namespace . -}}
{{- $_ := set $content .metadata.name (pick . "data" "binaryData") -}}
{{- end -}}
{{- end -}}
{{- if $content -}}
{{- $pairs = append $pairs (list (printf "checksum/%s" (first .)) (toJson $content | sha256sum)) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- toJson $pairs -}}
{{- end -}}

{{/* Where a variable that is a setting belongs: the context, the variable. */}}
{{- define "delaystream.settingPath" -}}
{{- $context := index . 0 -}}
{{- $name := index . 1 | trimSuffix "_FILE" | trimPrefix "DELAYSTREAM_" -}}
{{- if hasPrefix "KAFKA_" $name -}}
kafka: its values for brokers, TLS and SASL, or kafka.properties
{{- else if hasPrefix "TENANTS_" $name -}}
{{- $path := "settings.tenants, whose keys are topics of settings.request_topics" -}}
{{- $longest := 0 -}}
{{- range $topic := (include "delaystream.topicNames" $context | fromYaml).requests -}}
{{- $prefix := printf "TENANTS_%s_" (regexReplaceAll "[^A-Z0-9]" (upper $topic) "_") -}}
{{- if and (hasPrefix $prefix $name) (gt (len $prefix) $longest) -}}
{{- $longest = len $prefix -}}
{{- $table := ternary (printf ".%s" $topic) (printf "[%q]" $topic) (regexMatch "^[A-Za-z0-9_-]+$" $topic) -}}
{{- $path = printf "settings.tenants%s.%s" $table (trimPrefix $prefix $name | lower) -}}
{{- end -}}
{{- end -}}
{{- $path -}}
{{- else -}}
{{- $own := dict "DATA_DIR" "persistence" "INSTANCE_ID" "staticMembership" "HTTP_HOST" "http.host" "HTTP_PORT" "http.port" -}}
{{- $_ := set $own "CONSOLE_DATA_DIR" "console.persistence" -}}
{{- $_ := set $own "CONSOLE_HTTP_HOST" "console.http.host" -}}
{{- $_ := set $own "CONSOLE_HTTP_PORT" "console.http.port" -}}
{{- $_ := set $own "CONSOLE_DATABASE" "console.database" -}}
{{- $_ := set $own "CONSOLE_TOKENS" "console.authentication.tokens" -}}
{{- $_ := set $own "CONSOLE_SECRET" "console.cursors" -}}
{{- $_ := set $own "CONSOLE_OIDC_CLIENT_SECRET" "console.authentication.oidc.clientSecret" -}}
{{- if and (hasPrefix "CONSOLE_OIDC_" $name) (not (hasKey $own $name)) -}}
{{- $_ := set $own $name (printf "console.authentication.oidc.%s" (trimPrefix "CONSOLE_OIDC_" $name | lower | camelcase | untitle)) -}}
{{- end -}}
{{- get $own $name | default (printf "settings.%s" (lower $name)) -}}
{{- end -}}
{{- end -}}

{{/* Every variable of a container: the context, and what the chart itself sets beside Kafka and settings, as YAML. */}}
{{- define "delaystream.environment" -}}
{{- $context := index . 0 -}}
{{- $where := get $context "path" -}}
{{- range $name, $_ := $context.Values.env -}}
{{- include "delaystream.variable" (list $context (printf "%senv" $where) $name) -}}
{{- end -}}
{{- $own := printf "%s\n%s" (index . 1) (include "delaystream.kafkaEnv" $context) | trim -}}
{{- $names := list -}}
{{- range fromYamlArray $own -}}
{{- $names = append $names .name -}}
{{- end -}}
{{- range $context.Values.extraEnv -}}
{{- if hasKey . "value" -}}
{{- include "delaystream.variable" (list $context (printf "%sextraEnv" $where) .name) -}}
{{- end -}}
{{- if has .name $names -}}
{{- fail (printf "%sextraEnv has %s, which is set already: by %s. Only one can hold." $where .name (hasPrefix "DELAYSTREAM_" .name | ternary (include "delaystream.settingPath" (list $context .name)) (printf "%senv, or extraEnv itself" $where))) -}}
{{- end -}}
{{- $names = append $names .name -}}
{{- end -}}
{{- $own -}}
{{- with $context.Values.extraEnv }}
{{ toYaml . }}
{{- end -}}
{{- end -}}

{{/* Refuses what is no name of a variable, and settings: the context, the value's path, the name. */}}
{{- define "delaystream.variable" -}}
{{- $name := index . 2 -}}
{{- if not (regexMatch "^[A-Za-z_][A-Za-z0-9_]*$" $name) -}}
{{- fail (printf "%s has %q, which is no name of an environment variable: letters, digits and _, no digit first." (index . 1) $name) -}}
{{- end -}}
{{- if hasPrefix "DELAYSTREAM_" $name -}}
{{- fail (printf "%s has %s, which is a setting, and those are checked: set it in %s." (index . 1) $name (include "delaystream.settingPath" (list (index . 0) $name))) -}}
{{- end -}}
{{- end -}}

{{/* Refuses a further volume, mount or container that has the name or place of another: path, field, own ones, further ones. */}}
{{- define "delaystream.distinct" -}}
{{- $path := index . 0 -}}{{- $field := index . 1 -}}{{- $taken := index . 2 -}}
{{- range index . 3 -}}
{{- $value := get . $field -}}
{{- if has $value $taken -}}
{{- fail (printf "%s has %s %s, which is taken: choose another." $path $field $value) -}}
{{- end -}}
{{- $taken = append $taken $value -}}
{{- end -}}
{{- end -}}

{{/* The volumes, mounts and containers that people add do not clash with the chart's own: the context, the container's name, its volumes and its mounts as YAML. */}}
{{- define "delaystream.additions" -}}
{{- $context := index . 0 -}}
{{- $where := get $context "path" -}}
{{- $volumes := list "state" -}}
{{- range index . 2 | fromYamlArray -}}{{- $volumes = append $volumes .name -}}{{- end -}}
{{- $places := list -}}
{{- range index . 3 | fromYamlArray -}}{{- $places = append $places .mountPath -}}{{- end -}}
{{- include "delaystream.distinct" (list (printf "%sextraVolumes" $where) "name" (uniq $volumes) $context.Values.extraVolumes) -}}
{{- include "delaystream.distinct" (list (printf "%sextraVolumeMounts" $where) "mountPath" $places $context.Values.extraVolumeMounts) -}}
{{- $containers := concat $context.Values.extraInitContainers $context.Values.extraContainers -}}
{{- include "delaystream.distinct" (list (printf "%sextraContainers, or extraInitContainers," $where) "name" (list (index . 1)) $containers) -}}
{{- end -}}

{{/* What only workers are told. */}}
{{- define "delaystream.workerEnv" -}}
{{- if .Values.staticMembership -}}
# Static membership: a pod that comes back under its name within session_timeout_ms keeps its partitions.
- name: DELAYSTREAM_INSTANCE_ID
  valueFrom:
    fieldRef:
      fieldPath: metadata.name
{{ end -}}
- name: DELAYSTREAM_DATA_DIR
  value: /var/lib/delaystream
- name: DELAYSTREAM_HTTP_HOST
  value: {{ .Values.http.host | quote }}
- name: DELAYSTREAM_HTTP_PORT
  value: {{ int .Values.http.port | quote }}
{{- end -}}

{{- define "delaystream.workerMounts" -}}
- name: state
  mountPath: /var/lib/delaystream
- name: tmp
  mountPath: /tmp
{{ include "delaystream.kafkaMounts" . | trim }}
{{- end -}}

{{/* What selects the pod of `helm test`. */}}
{{- define "delaystream.testLabels" -}}
{{- include "delaystream.selectorLabels" (dict "Values" .Values "Chart" .Chart "Release" .Release "component" "test") -}}
{{- end -}}

{{/* The field topologySpreadConstraints of a pod; empty where none is wanted. */}}
{{- define "delaystream.spread" -}}
{{- if or .Values.topologySpread.hosts .Values.topologySpread.zones -}}
topologySpreadConstraints:
  {{- $selector := include "delaystream.selectorLabels" . }}
  {{- range $key, $when := dict "kubernetes.io/hostname" .Values.topologySpread.hosts "topology.kubernetes.io/zone" .Values.topologySpread.zones }}
  {{- if $when }}
  - maxSkew: 1
    topologyKey: {{ $key }}
    whenUnsatisfiable: {{ $when }}
    labelSelector:
      matchLabels:
        {{- $selector | nindent 8 }}
  {{- end }}
  {{- end }}
{{- end -}}
{{- end -}}

{{/* Egress rules that workers and consoles have alike: to DNS, to the brokers, and the further ones. */}}
{{- define "delaystream.egress" -}}
{{- $ports := list -}}
{{- range splitList "," .Values.kafka.bootstrapServers -}}
{{- $ports = append $ports (trim . | splitList ":" | last | int) -}}
{{- end -}}
{{- range .Values.networkPolicy.egress.brokerPorts -}}
{{- $ports = append $ports (int .) -}}
{{- end -}}
- ports:
    - port: 53
      protocol: UDP
    - port: 53
      protocol: TCP
- ports:
    {{- range uniq $ports }}
    - port: {{ . }}
      protocol: TCP
    {{- end }}
  {{- with .Values.networkPolicy.egress.brokers }}
  to:
    {{- toYaml . | nindent 4 }}
  {{- end }}
{{- with .Values.networkPolicy.egress.further }}
{{ toYaml . }}
{{- end }}
{{- end -}}
