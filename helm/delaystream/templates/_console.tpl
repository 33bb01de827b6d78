{{/* The console: workers' templates, with a console's values in the places of theirs. */}}

{{/* Fills a dict, the first of the list, so that it is the context of consoles: Kafka's credentials, variables, volumes and placement are those of `console`, all else is that of the release. */}}
{{- define "delaystream.consoleContext" -}}
{{- $target := index . 0 -}}
{{- $root := index . 1 -}}
{{- $console := $root.Values.console -}}
{{- $kafka := deepCopy $root.Values.kafka -}}
{{- if $console.kafka.tls.client.existingSecret -}}
{{- $_ := set $kafka.tls "client" $console.kafka.tls.client -}}
{{- end -}}
{{- if $console.kafka.sasl.existingSecret -}}
{{- range $name, $value := $console.kafka.sasl -}}
{{- $_ := set $kafka.sasl $name $value -}}
{{- end -}}
{{- end -}}
{{- $values := dict -}}
{{- range $name, $value := $root.Values -}}
{{- $_ := set $values $name $value -}}
{{- end -}}
{{- range $name := list "env" "extraEnv" "envFrom" "extraVolumes" "extraVolumeMounts" "extraContainers" "extraInitContainers" "podLabels" "podAnnotations" "serviceAccount" -}}
{{- $_ := set $values $name (get $console $name) -}}
{{- end -}}
{{- $_ := set $values "kafka" $kafka -}}
{{- range $name := list "Chart" "Release" "Capabilities" "Template" -}}
{{- $_ := set $target $name (get $root $name) -}}
{{- end -}}
{{- $_ := set $target "Values" $values -}}
{{- $_ := set $target "component" "console" -}}
{{- $_ := set $target "path" "console." -}}
{{- /* Without that of the tokens, which are read again when they change. */ -}}
{{- $_ := set $target "secrets" (list $console.database.existingSecret $console.cursors.existingSecret $console.authentication.oidc.clientSecret.existingSecret) -}}
{{- end -}}

{{/* What of the console is right by itself and wrong together; each sentence names the values. */}}
{{- define "delaystream.validateConsole" -}}
{{- $console := .Values.console -}}
{{- $oidc := $console.authentication.oidc -}}
{{- if not (or $console.authentication.tokens.existingSecret $oidc.issuer) -}}
{{- fail "console.enabled needs console.authentication.tokens.existingSecret, a secret with the file of tokens that the console lets in, or console.authentication.oidc.issuer, a provider of identities. In a pod it listens for others, and asks everybody who they are. `delaystream console token` prints a token and its entry for the file." -}}
{{- end -}}
{{- if $oidc.issuer -}}
{{- if not $oidc.clientId -}}
{{- fail "console.authentication.oidc.clientId is required with console.authentication.oidc.issuer: the console's client there." -}}
{{- end -}}
{{- if not $oidc.roles -}}
{{- fail (printf "console.authentication.oidc.roles is required with console.authentication.oidc.issuer: nobody of %s would be let in. Such as [\"viewer:*=staff\"], with a value of the claim %s." $oidc.issuer $oidc.rolesClaim) -}}
{{- end -}}
{{- if not (include "delaystream.setting" (list . "console_public_url" "")) -}}
{{- fail "settings.console_public_url is required with console.authentication.oidc.issuer: the provider sends browsers back there, such as to https://delays.example.com." -}}
{{- end -}}
{{- if not (has "openid" $oidc.scopes) -}}
{{- fail "console.authentication.oidc.scopes has no openid, without which nobody's identity is told." -}}
{{- end -}}
{{- else -}}
{{- $given := dict "clientId" $oidc.clientId "clientSecret.existingSecret" $oidc.clientSecret.existingSecret "roles" $oidc.roles "payload" $oidc.payload "audience" $oidc.audience -}}
{{- range $name, $value := $given -}}
{{- if $value -}}
{{- fail (printf "console.authentication.oidc.%s has no effect without console.authentication.oidc.issuer." $name) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- if gt (int $console.replicas) 1 -}}
{{- if not $console.database.existingSecret -}}
{{- fail (printf "console.replicas is %d, and several consoles need console.database.existingSecret: a secret with the URL of a PostgreSQL. They cannot share a file of SQLite." (int $console.replicas)) -}}
{{- end -}}
{{- if not $console.cursors.existingSecret -}}
{{- fail (printf "console.replicas is %d, and several consoles behind one address need console.cursors.existingSecret: with a secret in common each can go on with the lists that another began." (int $console.replicas)) -}}
{{- end -}}
{{- if $console.persistence.enabled -}}
{{- fail (printf "console.replicas is %d, and console.persistence is one volume, which one console holds: set console.persistence.enabled to false. Each console then reads its copy anew when it starts." (int $console.replicas)) -}}
{{- end -}}
{{- end -}}
{{- $kafka := .Values.kafka -}}
{{- if and $console.kafka.sasl.existingSecret (not (hasPrefix "SASL_" $kafka.protocol)) -}}
{{- fail (printf "console.kafka.sasl is set, and kafka.protocol %s does not use it: SASL_SSL does, and SASL_PLAINTEXT." $kafka.protocol) -}}
{{- end -}}
{{- if and $console.kafka.sasl.username (not $console.kafka.sasl.existingSecret) -}}
{{- fail "console.kafka.sasl.username has no effect without console.kafka.sasl.existingSecret, which holds its password." -}}
{{- end -}}
{{- if and $console.kafka.tls.client.existingSecret (not (hasSuffix "SSL" $kafka.protocol)) -}}
{{- fail (printf "console.kafka.tls is set, and kafka.protocol %s does not use it: SSL does, and SASL_SSL." $kafka.protocol) -}}
{{- end -}}
{{- if and $console.ingress.enabled (not $console.ingress.hosts) -}}
{{- fail "console.ingress.hosts is required with console.ingress.enabled: the names under which people and services ask, such as [{host: delays.example.com}]." -}}
{{- end -}}
{{- if and $console.httpRoute.enabled (not $console.httpRoute.parentRefs) -}}
{{- fail "console.httpRoute.parentRefs is required with console.httpRoute.enabled: the Gateways that the route belongs to, such as [{name: public, namespace: gateways}]." -}}
{{- end -}}
{{- if and $console.serviceMonitor.enabled (not $console.serviceMonitor.token.existingSecret) -}}
{{- fail "console.serviceMonitor.token.existingSecret is required with console.serviceMonitor.enabled: the console shows its metrics to nobody without a token." -}}
{{- end -}}
{{- $egress := .Values.networkPolicy.egress -}}
{{- if and .Values.networkPolicy.enabled $egress.enabled $console.database.existingSecret (not $console.networkPolicy.egress) (not $egress.further) -}}
{{- fail "networkPolicy.egress.enabled keeps the console from its database: console.networkPolicy.egress needs a rule for it, such as [{ports: [{port: 5432, protocol: TCP}]}]." -}}
{{- end -}}
{{- if and .Values.networkPolicy.enabled $egress.enabled $oidc.issuer (not $console.networkPolicy.egress) (not $egress.further) -}}
{{- fail (printf "networkPolicy.egress.enabled keeps the console from %s: console.networkPolicy.egress needs a rule for it, such as [{ports: [{port: 443, protocol: TCP}]}]." $oidc.issuer) -}}
{{- end -}}
{{- end -}}

{{/* What only a console is told. */}}
{{- define "delaystream.consoleEnv" -}}
{{- $console := .Values.console -}}
- name: DELAYSTREAM_CONSOLE_DATA_DIR
  value: /var/lib/delaystream/console
- name: DELAYSTREAM_CONSOLE_HTTP_HOST
  value: {{ $console.http.host | quote }}
- name: DELAYSTREAM_CONSOLE_HTTP_PORT
  value: {{ int $console.http.port | quote }}
{{- with $console.authentication.tokens }}
{{- if .existingSecret }}
- name: DELAYSTREAM_CONSOLE_TOKENS_FILE
  value: /etc/delaystream/console-tokens/{{ .key }}
{{- end }}
{{- end }}
{{- with $console.authentication.oidc }}
{{- if .issuer }}
- name: DELAYSTREAM_CONSOLE_OIDC_ISSUER
  value: {{ .issuer | quote }}
- name: DELAYSTREAM_CONSOLE_OIDC_CLIENT_ID
  value: {{ .clientId | quote }}
{{- if .clientSecret.existingSecret }}
- name: DELAYSTREAM_CONSOLE_OIDC_CLIENT_SECRET_FILE
  value: /etc/delaystream/console-oidc/{{ .clientSecret.key }}
{{- end }}
- name: DELAYSTREAM_CONSOLE_OIDC_ROLES
  value: {{ join "," .roles | quote }}
- name: DELAYSTREAM_CONSOLE_OIDC_ROLES_CLAIM
  value: {{ .rolesClaim | quote }}
- name: DELAYSTREAM_CONSOLE_OIDC_NAME_CLAIM
  value: {{ .nameClaim | quote }}
- name: DELAYSTREAM_CONSOLE_OIDC_SCOPES
  value: {{ join "," .scopes | quote }}
{{- with .payload }}
- name: DELAYSTREAM_CONSOLE_OIDC_PAYLOAD
  value: {{ join "," . | quote }}
{{- end }}
{{- with .audience }}
- name: DELAYSTREAM_CONSOLE_OIDC_AUDIENCE
  value: {{ . | quote }}
{{- end }}
{{- end }}
{{- end }}
{{- with $console.database }}
{{- if .existingSecret }}
- name: DELAYSTREAM_CONSOLE_DATABASE_FILE
  value: /etc/delaystream/console-database/{{ .key }}
{{- end }}
{{- end }}
{{- with $console.cursors }}
{{- if .existingSecret }}
- name: DELAYSTREAM_CONSOLE_SECRET_FILE
  value: /etc/delaystream/console-cursors/{{ .key }}
{{- end }}
{{- end }}
{{- end -}}

{{/* The console's own secrets: names of volumes, and their values. */}}
{{- define "delaystream.consoleSecrets" -}}
{{- with .Values.console -}}
{{- dict "console-tokens" .authentication.tokens "console-database" .database "console-cursors" .cursors "console-oidc" .authentication.oidc.clientSecret | toJson -}}
{{- end -}}
{{- end -}}

{{/* Whole volumes, not single files: a changed secret is seen in those only. */}}
{{- define "delaystream.consoleMounts" -}}
- name: state
  mountPath: /var/lib/delaystream
- name: tmp
  mountPath: /tmp
{{- range $name, $secret := include "delaystream.consoleSecrets" . | fromJson }}
{{- if $secret.existingSecret }}
- name: {{ $name }}
  mountPath: /etc/delaystream/{{ $name }}
  readOnly: true
{{- end }}
{{- end }}
{{ include "delaystream.kafkaMounts" . | trim }}
{{- end -}}

{{/* 0440: the pod's group owns the files. */}}
{{- define "delaystream.consoleVolumes" -}}
- name: tmp
  emptyDir:
    sizeLimit: 64Mi
{{- range $name, $secret := include "delaystream.consoleSecrets" . | fromJson }}
{{- if $secret.existingSecret }}
- name: {{ $name }}
  secret:
    secretName: {{ $secret.existingSecret }}
    defaultMode: 0440
    items:
      - key: {{ $secret.key }}
        path: {{ $secret.key }}
{{- end }}
{{- end }}
{{ include "delaystream.kafkaVolumes" . | trim }}
{{- end -}}
