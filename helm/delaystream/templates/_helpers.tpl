{{- define "delaystream.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" -}}
{{- end -}}

{{/* At most 52 characters: a StatefulSet puts a hash of 11 behind its name into a label of 63. */}}
{{- define "delaystream.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 52 | trimSuffix "-" -}}
{{- else -}}
{{- $name := include "delaystream.name" . -}}
{{- if contains $name .Release.Name -}}
{{- .Release.Name | trunc 52 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 52 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* The name of the context's own objects: the workers', or a console's. */}}
{{- define "delaystream.objectsName" -}}
{{- include "delaystream.fullname" . -}}
{{- with get . "component" }}-{{ . }}{{ end -}}
{{- end -}}

{{/* What selects the pods; never changes, or an upgrade would be refused. The context is the workers', unless it says that it is a console's. */}}
{{- define "delaystream.selectorLabels" -}}
app.kubernetes.io/name: {{ include "delaystream.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: {{ get . "component" | default "worker" }}
{{- end -}}

{{- define "delaystream.labels" -}}
{{ include "delaystream.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end -}}

{{- define "delaystream.serviceAccountName" -}}
{{- if .Values.serviceAccount.create -}}
{{- default (include "delaystream.objectsName" .) .Values.serviceAccount.name -}}
{{- else -}}
{{- default "default" .Values.serviceAccount.name -}}
{{- end -}}
{{- end -}}

{{/* Helm hands over numbers as floats: 8388608 would be written 8.388608e+06. */}}
{{- define "delaystream.value" -}}
{{- if kindIs "slice" . -}}
{{- join "," . -}}
{{- else if kindIs "float64" . -}}
{{- if eq . (floor .) -}}{{ int64 . }}{{- else -}}{{ . }}{{- end -}}
{{- else -}}
{{- toString . -}}
{{- end -}}
{{- end -}}

{{/* A setting by its name; "" if it is not set. */}}
{{- define "delaystream.setting" -}}
{{- $context := index . 0 -}}{{- $name := index . 1 -}}{{- $default := index . 2 -}}
{{- $value := get $context.Values.settings $name -}}
{{- if or (kindIs "invalid" $value) (eq (toString $value) "") -}}
{{- $default -}}
{{- else -}}
{{- include "delaystream.value" $value -}}
{{- end -}}
{{- end -}}

{{/* Values that are right one by one and wrong together; the schema cannot say these in a sentence. */}}
{{- define "delaystream.validate" -}}
{{- if .Chart.IsRoot -}}
{{- range $name, $_ := omit .Values.global "imageRegistry" "imagePullSecrets" -}}
{{- fail (printf "global.%s has no effect: this chart uses global.imageRegistry and global.imagePullSecrets, and there is no other chart in the release." $name) -}}
{{- end -}}
{{- end -}}
{{- $kafka := .Values.kafka -}}
{{- if not $kafka.bootstrapServers -}}
{{- fail "kafka.bootstrapServers is required: host:port of one or more brokers, comma-separated." -}}
{{- end -}}
{{- $seen := dict -}}
{{- range $topic := (include "delaystream.topicNames" . | fromYaml).requests -}}
{{- if not (include "delaystream.requestSetting" (list $ $topic "destinations_allow" "")) -}}
{{- fail "settings.destinations_allow is required: the topics that may be delivered to, as names and globs, such as [orders, reminders-*]." -}}
{{- end -}}
{{- end -}}
{{- range $topic, $table := .Values.settings.tenants -}}
{{- if not (has $topic (include "delaystream.topicNames" $ | fromYaml).requests) -}}
{{- fail (printf "settings.tenants has a table for %s, which is not among settings.request_topics." $topic) -}}
{{- end -}}
{{- $variable := regexReplaceAll "[^A-Z0-9]" (upper $topic) "_" -}}
{{- with get $seen $variable -}}
{{- fail (printf "settings.tenants has tables for %s and %s, whose environment variables have the same names: one of them has to be in a configuration file." . $topic) -}}
{{- end -}}
{{- $_ := set $seen $variable $topic -}}
{{- end -}}
{{- if hasPrefix "SASL_" $kafka.protocol -}}
{{- if eq $kafka.sasl.mechanism "OAUTHBEARER" -}}
{{- if eq (empty $kafka.sasl.serviceAccountToken.audience) (empty (get $kafka.properties "sasl.oauthbearer.token.endpoint.url")) -}}
{{- fail "kafka.sasl.mechanism OAUTHBEARER needs one of kafka.sasl.serviceAccountToken.audience, for the pods' own tokens, and sasl.oauthbearer.token.endpoint.url in kafka.properties, for an issuer that takes the client id and secret of kafka.sasl.existingSecret." -}}
{{- end -}}
{{- else if not $kafka.sasl.existingSecret -}}
{{- fail (printf "kafka.sasl.existingSecret is required with kafka.protocol %s and kafka.sasl.mechanism %s: the secret that holds the password." $kafka.protocol $kafka.sasl.mechanism) -}}
{{- end -}}
{{- else if or $kafka.sasl.existingSecret $kafka.sasl.username -}}
{{- fail (printf "kafka.sasl is set, and kafka.protocol %s does not use it: SASL_SSL does, and SASL_PLAINTEXT." $kafka.protocol) -}}
{{- end -}}
{{- if and (not (hasSuffix "SSL" $kafka.protocol)) (or $kafka.tls.authority.existingSecret $kafka.tls.client.existingSecret) -}}
{{- fail (printf "kafka.tls is set, and kafka.protocol %s does not use it: SSL does, and SASL_SSL." $kafka.protocol) -}}
{{- end -}}
{{- if and .Values.metrics.serviceMonitor.enabled .Values.metrics.podMonitor.enabled -}}
{{- fail "metrics.serviceMonitor and metrics.podMonitor are both enabled: every worker would be scraped twice." -}}
{{- end -}}
{{- if and (or .Values.strimzi.topics.enabled .Values.strimzi.users.enabled) (not .Values.strimzi.cluster) -}}
{{- fail "strimzi.cluster is required with strimzi.topics or strimzi.users: the name of the Kafka object." -}}
{{- end -}}
{{- with .Values.keda -}}
{{- if .enabled -}}
{{- if not .prometheusAddress -}}
{{- fail "keda.prometheusAddress is required with keda.enabled." -}}
{{- end -}}
{{- if gt (int .minReplicas) (int .maxReplicas) -}}
{{- fail (printf "keda.minReplicas (%d) is larger than keda.maxReplicas (%d)." (int .minReplicas) (int .maxReplicas)) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* How to reach Kafka, for workers and for the test: names and files, never a secret's value. */}}
{{- define "delaystream.kafkaEnv" -}}
{{- with .Values.kafka -}}
- name: DELAYSTREAM_KAFKA_BOOTSTRAP_SERVERS
  value: {{ .bootstrapServers | quote }}
- name: DELAYSTREAM_KAFKA_SECURITY_PROTOCOL
  value: {{ .protocol }}
{{- with .tls.authority }}
{{- if .existingSecret }}
- name: DELAYSTREAM_KAFKA_SSL_CA_LOCATION
  value: /etc/delaystream/kafka-authority/{{ .key }}
{{- end }}
{{- end }}
{{- with .tls.client }}
{{- if .existingSecret }}
- name: DELAYSTREAM_KAFKA_SSL_CERTIFICATE_LOCATION
  value: /etc/delaystream/kafka-client/{{ .certificateKey }}
- name: DELAYSTREAM_KAFKA_SSL_KEY_LOCATION
  value: /etc/delaystream/kafka-client/{{ .keyKey }}
{{- with .passwordKey }}
- name: DELAYSTREAM_KAFKA_SSL_KEY_PASSWORD_FILE
  value: /etc/delaystream/kafka-client/{{ . }}
{{- end }}
{{- end }}
{{- end }}
{{- if hasPrefix "SASL_" .protocol }}
{{- with .sasl }}
- name: DELAYSTREAM_KAFKA_SASL_MECHANISM
  value: {{ .mechanism }}
{{- if .existingSecret }}
{{- $oauth := eq .mechanism "OAUTHBEARER" }}
{{- $user := ternary "SASL_OAUTHBEARER_CLIENT_CREDENTIALS_CLIENT_ID" "SASL_USERNAME" $oauth }}
{{- $password := ternary "SASL_OAUTHBEARER_CLIENT_CREDENTIALS_CLIENT_SECRET" "SASL_PASSWORD" $oauth }}
{{- if .username }}
- name: DELAYSTREAM_KAFKA_{{ $user }}
  value: {{ .username | quote }}
{{- else }}
- name: DELAYSTREAM_KAFKA_{{ $user }}_FILE
  value: /etc/delaystream/kafka-sasl/{{ .usernameKey }}
{{- end }}
- name: DELAYSTREAM_KAFKA_{{ $password }}_FILE
  value: /etc/delaystream/kafka-sasl/{{ .passwordKey }}
{{- end }}
{{- if and (eq .mechanism "OAUTHBEARER") .serviceAccountToken.audience }}
- name: DELAYSTREAM_KAFKA_SASL_OAUTHBEARER_TOKEN_ENDPOINT_URL
  value: file:///etc/delaystream/kafka-token/token
{{- end }}
{{- end }}
{{- end }}
{{- range $name, $value := .properties }}
- name: DELAYSTREAM_KAFKA_{{ $name | replace "." "_" | upper }}
  value: {{ include "delaystream.value" $value | quote }}
{{- end }}
{{- end }}
{{- range $name, $value := omit .Values.settings "tenants" }}
{{- if not (kindIs "invalid" $value) }}
- name: DELAYSTREAM_{{ $name | upper }}
  value: {{ include "delaystream.value" $value | quote }}
{{- end }}
{{- end }}
{{- range $topic, $table := .Values.settings.tenants }}
{{- range $name, $value := $table }}
{{- if not (kindIs "invalid" $value) }}
- name: DELAYSTREAM_TENANTS_{{ regexReplaceAll "[^A-Z0-9]" (upper $topic) "_" }}_{{ upper $name }}
  value: {{ include "delaystream.value" $value | quote }}
{{- end }}
{{- end }}
{{- end }}
{{- range $name, $value := .Values.env }}
- name: {{ $name }}
  value: {{ include "delaystream.value" $value | quote }}
{{- end }}
{{- end -}}

{{- define "delaystream.kafkaMounts" -}}
{{- with .Values.kafka.tls.authority.existingSecret }}
- name: kafka-authority
  mountPath: /etc/delaystream/kafka-authority
  readOnly: true
{{- end }}
{{- with .Values.kafka.tls.client.existingSecret }}
- name: kafka-client
  mountPath: /etc/delaystream/kafka-client
  readOnly: true
{{- end }}
{{- with .Values.kafka.sasl.existingSecret }}
- name: kafka-sasl
  mountPath: /etc/delaystream/kafka-sasl
  readOnly: true
{{- end }}
{{- if .Values.kafka.sasl.serviceAccountToken.audience }}
- name: kafka-token
  mountPath: /etc/delaystream/kafka-token
  readOnly: true
{{- end }}
{{- end -}}

{{/* 0440: the pod's group owns the files. */}}
{{- define "delaystream.kafkaVolumes" -}}
{{- with .Values.kafka.tls.authority }}
{{- if .existingSecret }}
- name: kafka-authority
  secret:
    secretName: {{ .existingSecret }}
    defaultMode: 0440
    items:
      - key: {{ .key }}
        path: {{ .key }}
{{- end }}
{{- end }}
{{- with .Values.kafka.tls.client }}
{{- if .existingSecret }}
- name: kafka-client
  secret:
    secretName: {{ .existingSecret }}
    defaultMode: 0440
    items:
      {{- range compact (list .certificateKey .keyKey .passwordKey) }}
      - key: {{ . }}
        path: {{ . }}
      {{- end }}
{{- end }}
{{- end }}
{{- with .Values.kafka.sasl }}
{{- if .existingSecret }}
- name: kafka-sasl
  secret:
    secretName: {{ .existingSecret }}
    defaultMode: 0440
    items:
      {{- range compact (list (ternary .usernameKey "" (eq .username "")) .passwordKey) }}
      - key: {{ . }}
        path: {{ . }}
      {{- end }}
{{- end }}
{{- if .serviceAccountToken.audience }}
- name: kafka-token
  projected:
    defaultMode: 0440
    sources:
      - serviceAccountToken:
          audience: {{ .serviceAccountToken.audience | quote }}
          expirationSeconds: {{ int64 .serviceAccountToken.expirationSeconds }}
          path: token
{{- end }}
{{- end }}
{{- end -}}

{{- define "delaystream.podSecurityContext" -}}
runAsNonRoot: true
{{- with .Values.security }}
{{- with .runAsUser }}
runAsUser: {{ int64 . }}
{{- end }}
{{- with .runAsGroup }}
runAsGroup: {{ int64 . }}
{{- end }}
{{- with .fsGroup }}
fsGroup: {{ int64 . }}
fsGroupChangePolicy: OnRootMismatch
{{- end }}
{{- end }}
seccompProfile:
  type: RuntimeDefault
{{- end -}}

{{- define "delaystream.securityContext" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end -}}


{{/* The topics' names by their kind in files/topics.json, as YAML. */}}
{{- define "delaystream.topicNames" -}}
{{- $requests := list }}
{{- range splitList "," (include "delaystream.setting" (list . "request_topics" "delay-requests")) }}
{{- $requests = append $requests (trim .) }}
{{- end }}
requests: {{ compact $requests | toJson }}
commands: {{ list (include "delaystream.setting" (list . "commands_topic" "delay-commands")) | toJson }}
changelog: {{ list (include "delaystream.setting" (list . "changelog_topic" "delay-wheel-changelog")) | toJson }}
events: {{ list (include "delaystream.setting" (list . "events_topic" "delay-events")) | toJson }}
dead_letters: {{ list (include "delaystream.setting" (list . "dead_letters_topic" "delay-dead-letters")) | toJson }}
receipts: {{ list (include "delaystream.setting" (list . "receipts_topic" "delay-receipts")) | toJson }}
{{- end -}}

{{/* A name if Kubernetes accepts it (RFC 1123), otherwise a similar name that is as unique: the same as `delaystream topics print` makes. */}}
{{- define "delaystream.objectName" -}}
{{- if and (regexMatch "^[a-z0-9]([a-z0-9.-]*[a-z0-9])?$" .) (not (regexMatch "[.][.-]|-[.]" .)) (le (len .) 253) -}}
{{- . -}}
{{- else -}}
{{- $like := regexReplaceAll "[^a-z0-9]+" (lower .) "-" | trimAll "-" | trunc 200 -}}
{{- printf "%s-%s" (default "topic" $like) (sha256sum . | trunc 8) -}}
{{- end -}}
{{- end -}}

{{/* A setting of the requests of one topic: its own, or that of all. */}}
{{- define "delaystream.requestSetting" -}}
{{- $context := index . 0 -}}{{- $topic := index . 1 -}}{{- $name := index . 2 -}}{{- $default := index . 3 -}}
{{- $table := default (dict) (get (default (dict) $context.Values.settings.tenants) $topic) -}}
{{- $own := get $table $name -}}
{{- if or (kindIs "invalid" $own) (eq (toString $own) "") -}}
{{- include "delaystream.setting" (list $context $name $default) -}}
{{- else -}}
{{- include "delaystream.value" $own -}}
{{- end -}}
{{- end -}}

{{- define "delaystream.strimziLabels" -}}
strimzi.io/cluster: {{ .Values.strimzi.cluster }}
{{ include "delaystream.labels" . | replace "app.kubernetes.io/component: worker" "app.kubernetes.io/component: kafka" }}
{{- end -}}
