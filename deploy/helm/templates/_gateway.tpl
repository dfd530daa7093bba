{{/* What the gateway's pods, the migrations and the tests share: secrets, settings, addresses, storage. */}}

{{- define "simsa.gatewayPort" -}}8080{{- end -}}

{{- define "simsa.gatewayUser" -}}10001{{- end -}}

{{- define "simsa.gatewayUrl" -}}
http://{{ include "simsa.fullname" . }}.{{ .Release.Namespace }}.svc.{{ .Values.clusterDomain }}:{{ include "simsa.gatewayPort" . }}
{{- end -}}

{{/* Whether several gateways may serve at once. */}}
{{- define "simsa.isShared" -}}
{{- and .Values.postgresql.enabled .Values.redis.enabled | ternary "yes" "" -}}
{{- end -}}

{{/* Whether no gateway is to run: to move to Redis, or to restore. */}}
{{- define "simsa.isStopped" -}}
{{- int .Values.gateway.replicas | empty | ternary "yes" "" -}}
{{- end -}}

{{- define "simsa.refuseLoneGateways" -}}
{{- $several := or .Values.gateway.scaling.enabled (gt (int .Values.gateway.replicas) 1) -}}
{{- $missing := list -}}
{{- if not .Values.postgresql.enabled -}}
{{- $missing = append $missing "postgresql.enabled (SIMSA_DATABASE_URL)" -}}
{{- end -}}
{{- if not .Values.redis.enabled -}}
{{- $missing = append $missing "redis.enabled (SIMSA_REDIS_URL)" -}}
{{- end -}}
{{- if and $several $missing -}}
{{- fail (printf "%s: several gateways keep records in PostgreSQL and share limits through Redis, or every caller has each limit several times; set %s" (.Values.gateway.scaling.enabled | ternary "gateway.scaling" "gateway.replicas") (join " and " $missing)) -}}
{{- end -}}
{{- if and .Values.redis.enabled (not .Values.postgresql.enabled) -}}
{{- fail "redis.enabled: a gateway with Redis and without PostgreSQL refuses to start, since several share PostgreSQL only; set postgresql.enabled (SIMSA_DATABASE_URL), or redis.enabled to false" -}}
{{- end -}}
{{- if and .Values.gateway.scaling.enabled (include "simsa.isStopped" .) -}}
{{- fail "gateway.replicas: 0 stops all gateways, and the scaler would start them again; set gateway.scaling.enabled to false meanwhile" -}}
{{- end -}}
{{- if and .Values.gateway.scaling.enabled (gt (int .Values.gateway.scaling.minReplicas) (int .Values.gateway.scaling.maxReplicas)) -}}
{{- fail "gateway.scaling: minReplicas is more than maxReplicas" -}}
{{- end -}}
{{- end -}}

{{- define "simsa.secretName" -}}
{{- $secrets := .Values.secrets -}}
{{- if and $secrets.externalSecret.enabled $secrets.existingSecret -}}
{{- fail "secrets: either existingSecret or externalSecret, not both" -}}
{{- else if $secrets.externalSecret.enabled -}}
{{- printf "%s-secrets" (include "simsa.fullname" .) -}}
{{- else -}}
{{- required "secrets.existingSecret: name a Secret with the key SIMSA_ADMIN_KEY, or let secrets.externalSecret make one" $secrets.existingSecret -}}
{{- end -}}
{{- end -}}

{{/* One variable from the Secret: {root, name, optional}. */}}
{{- define "simsa.secretVariable" -}}
- name: {{ .name }}
  valueFrom:
    secretKeyRef: {name: {{ include "simsa.secretName" .root }}, key: {{ .name }}{{ if .optional }}, optional: true{{ end }}}
{{- end -}}

{{/* Where records are kept: the same for the gateway and for the migrations. */}}
{{- define "simsa.databaseEnvironment" -}}
- {name: SIMSA_DATA_DIR, value: /data}
{{- if .Values.postgresql.enabled }}
{{ include "simsa.secretVariable" (dict "root" . "name" "SIMSA_DATABASE_URL") }}
{{- end }}
{{- if .Values.redis.enabled }}
{{ include "simsa.secretVariable" (dict "root" . "name" "SIMSA_REDIS_URL") }}
{{- end }}
{{- range $name, $value := .Values.gateway.settings }}
{{- if hasPrefix "SIMSA_DATABASE_" $name }}
- {name: {{ $name }}, value: {{ include "simsa.text" $value | quote }}}
{{- end }}
{{- end }}
{{- end -}}

{{- define "simsa.gatewayEnvironment" -}}
{{- $own := list "SIMSA_HOST" "SIMSA_PORT" "SIMSA_REGISTRY" "SIMSA_REPLICAS_FILE" "SIMSA_DATA_DIR" "SIMSA_SHUTDOWN_GRACE_S" "SIMSA_PUBLIC_URL" "SIMSA_REVIEW_URL" -}}
{{- $secret := list "SIMSA_ADMIN_KEY" "SIMSA_KEY" "SIMSA_DATABASE_URL" "SIMSA_REDIS_URL" "SIMSA_OTLP_HEADERS" -}}
{{- $known := .Files.Get "files/settings.txt" | splitList "\n" -}}
{{- $isOwnImage := and (has (.Values.gateway.image.tag | default "" | toString) (list "" .Chart.AppVersion)) (not .Values.gateway.image.digest) -}}
- {name: SIMSA_HOST, value: {{ .Values.listen | quote }}}
- {name: SIMSA_PORT, value: {{ include "simsa.gatewayPort" . | quote }}}
- {name: SIMSA_REGISTRY, value: /etc/simsa/model_registry.yaml}
- {name: SIMSA_REPLICAS_FILE, value: /etc/simsa/replicas.yaml}
- {name: SIMSA_SHUTDOWN_GRACE_S, value: {{ int .Values.gateway.drainSeconds | quote }}}
{{ include "simsa.secretVariable" (dict "root" . "name" "SIMSA_ADMIN_KEY") }}
{{ include "simsa.databaseEnvironment" . }}
{{- with include "simsa.trustEnvironment" . }}
{{ . }}
{{- end }}
{{- with .Values.exposure.reviewHost }}
{{- if eq . $.Values.exposure.host }}
{{- fail "exposure.reviewHost: it is exposure.host, where nothing but reviewers' pages would be served any more; give reviewers a host of their own" }}
{{- end }}
{{- /* Beside SIMSA_PUBLIC_URL nothing but that name would be served, and Prometheus and probes come by address. */}}
- {name: SIMSA_REVIEW_URL, value: {{ printf "https://%s" . | quote }}}
{{- else }}
{{- with .Values.exposure.host }}
- {name: SIMSA_PUBLIC_URL, value: {{ printf "https://%s" . | quote }}}
{{- end }}
{{- end }}
{{- if get .Values.gateway.settings "SIMSA_OTLP_ENDPOINT" }}
{{ include "simsa.secretVariable" (dict "root" . "name" "SIMSA_OTLP_HEADERS" "optional" true) }}
{{- end }}
{{- range (include "simsa.upstreamKeys" . | fromJson).names }}
{{ include "simsa.secretVariable" (dict "root" $ "name" . "optional" true) }}
{{- end }}
{{- range $name, $value := .Values.gateway.settings }}
{{- if and (eq $name "SIMSA_PUBLIC_URL") $.Values.exposure.reviewHost }}
{{- fail "gateway.settings.SIMSA_PUBLIC_URL: beside exposure.reviewHost the gateway would serve everything under that one name only, and probes and Prometheus come by address; leave it out" }}
{{- else if has $name $own }}
{{- fail (printf "gateway.settings.%s: the chart sets it from its other values; leave it out" $name) }}
{{- else if has $name $secret }}
{{- fail (printf "gateway.settings.%s: it is a secret; put it into the Secret under that key" $name) }}
{{- else if and $isOwnImage (not (has $name $known)) }}
{{- fail (printf "gateway.settings.%s: simsa %s knows no such setting; docs/settings.md lists them" $name $.Chart.AppVersion) }}
{{- else if not (hasPrefix "SIMSA_DATABASE_" $name) }}
- {name: {{ $name }}, value: {{ include "simsa.text" $value | quote }}}
{{- end }}
{{- end }}
{{- end -}}

{{- define "simsa.gatewayImage" -}}
{{- include "simsa.image" (dict "root" . "image" .Values.gateway.image "tag" .Chart.AppVersion "where" "gateway.image") -}}
{{- end -}}

{{/* A container that runs `simsa db upgrade`, as a step of its own. */}}
{{- define "simsa.migrationContainer" -}}
name: migrate
image: {{ include "simsa.gatewayImage" . }}
command: [simsa, db, upgrade]
env:
  {{- include "simsa.databaseEnvironment" . | nindent 2 }}
  {{- with include "simsa.trustEnvironment" . }}
  {{- . | nindent 2 }}
  {{- end }}
resources:
  requests: {cpu: 100m, memory: 256Mi}
  limits: {memory: 1Gi}
securityContext:
  {{- include "simsa.containerSecurity" . | nindent 2 }}
volumeMounts:
  - {name: data, mountPath: /data}
  - {name: tmp, mountPath: /tmp}
  {{- with include "simsa.trustMount" . }}
  {{- . | nindent 2 }}
  {{- end }}
{{- end -}}

{{/* One gateway keeps its data on a volume; several keep what is not yet in PostgreSQL on their nodes. */}}
{{- define "simsa.hasDataVolume" -}}
{{- include "simsa.isShared" . | empty | ternary "yes" "" -}}
{{- end -}}
