{{/* The model registry as the chart reads it: its text, what it parses to, and the kinds of value in it. */}}

{{- define "simsa.registryText" -}}
{{- if .Values.registryYaml -}}
{{- .Values.registryYaml -}}
{{- else -}}
{{- .Files.Get "files/model_registry.yaml" -}}
{{- end -}}
{{- end -}}

{{/* The registry as JSON. A file that is no YAML would otherwise be a registry without models, and no error. */}}
{{- define "simsa.registry" -}}
{{- $text := include "simsa.registryText" . -}}
{{- if not (trim $text) -}}
{{- fail "registryYaml: the registry is empty; give one with --set-file registryYaml=model_registry.yaml" -}}
{{- end -}}
{{- if gt (len $text) 700000 -}}
{{- fail (printf "registryYaml: %d bytes are too many for a ConfigMap beside everything else of a release: at most 700000" (len $text)) -}}
{{- end -}}
{{- $registry := fromYaml $text -}}
{{- if hasKey $registry "Error" -}}
{{- fail (printf "registryYaml: it cannot be read: %s; `simsa registry check` says more" $registry.Error) -}}
{{- end -}}
{{- if not (and (kindIs "slice" $registry.models) $registry.models) -}}
{{- fail "registryYaml: it has no list of models; `simsa registry check` says more" -}}
{{- end -}}
{{- toJson $registry -}}
{{- end -}}

{{- define "simsa.registrySha256" -}}
{{- include "simsa.registryText" . | sha256sum -}}
{{- end -}}

{{/* A fact is a plain value or {value, source, confidence, note}. Empty where it is not known. */}}
{{- define "simsa.fact" -}}
{{- $value := . -}}
{{- if kindIs "map" . -}}
{{- $value = .value -}}
{{- end -}}
{{- if not (kindIs "invalid" $value) -}}
{{- include "simsa.text" $value -}}
{{- end -}}
{{- end -}}

{{/* "81559 MiB", "32.0B" or a plain number as a whole number, empty where it is none. */}}
{{- define "simsa.number" -}}
{{- $text := toString . -}}
{{- $unit := regexReplaceAll "^[0-9.]+ ?" $text "" -}}
{{- $scales := dict "" 1 "MB" 1000000 "GB" 1000000000 "MiB" 1048576 "GiB" 1073741824 "M" 1000000 "B" 1000000000 "T" 1000000000000 -}}
{{- if and (regexMatch "^[0-9]+([.][0-9]+)? ?[A-Za-z]*$" $text) (hasKey $scales $unit) -}}
{{- printf "%.0f" (mulf (regexFind "^[0-9.]+" $text | float64) (get $scales $unit | float64)) -}}
{{- end -}}
{{- end -}}

{{/* Bytes of a model's weights: as published, else parameters times the number format's bytes; empty if unknown. */}}
{{- define "simsa.weightsBytes" -}}
{{- $weights := .weights | default dict -}}
{{- $params := include "simsa.number" (include "simsa.fact" ((.shape | default dict).params)) -}}
{{- $each := dict "float32" 4.0 "bfloat16" 2.0 "float16" 2.0 "fp8" 1.0 "int8" 1.0 "int4" 0.6 "nvfp4" 0.6 "mxfp4" 0.6 -}}
{{- if $weights.size -}}
{{- include "simsa.number" (include "simsa.text" $weights.size) -}}
{{- else if $params -}}
{{- printf "%.0f" (mulf ($params | float64) (get $each ($weights.dtype | default "bfloat16"))) -}}
{{- end -}}
{{- end -}}

{{/* A version with three parts, as comparing needs them. */}}
{{- define "simsa.version" -}}
{{- $parts := splitList "." (toString .) -}}
{{- printf "%s.%s.%s" (index $parts 0) (gt (len $parts) 1 | ternary (index $parts 1) "0") (gt (len $parts) 2 | ternary (last (slice $parts 0 (min 3 (len $parts) | int))) "0") -}}
{{- end -}}

{{/* Seconds of the longest answer that the registry allows: what proxies must let a stream live. */}}
{{- define "simsa.longestStreamSeconds" -}}
{{- $longest := 1 -}}
{{- range (include "simsa.registry" . | fromJson).models -}}
{{- $longest = max $longest (int (ceil (((.timeouts | default dict).total_s) | default 1800.0))) -}}
{{- end -}}
{{- $longest -}}
{{- end -}}

{{/* Variables with the keys of hosted APIs, as the registry's replicas name them: a JSON object {names: [...]}. */}}
{{- define "simsa.upstreamKeys" -}}
{{- $names := list -}}
{{- range (include "simsa.registry" . | fromJson).models -}}
{{- range .replicas -}}
{{- with .api_key_env -}}
{{- $names = append $names . -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- dict "names" ($names | uniq | sortAlpha) | toJson -}}
{{- end -}}
