{{/*
Which engines there are: each model that values place, with everything that its objects need, from the registry's entry
and the place. What does not hold together fails here, with what would be right.
*/}}

{{/* A JSON object {engines: [...]}, sorted by model id. */}}
{{- define "simsa.engines" -}}
{{- $root := . -}}
{{- $registry := include "simsa.registry" . | fromJson -}}
{{- $entries := dict -}}
{{- $served := list -}}
{{- range $registry.models -}}
{{- $_ := set $entries .id . -}}
{{- if eq (.serving | default dict).kind "vllm" -}}
{{- $served = append $served .id -}}
{{- end -}}
{{- end -}}
{{- $gpus := dict -}}
{{- range $registry.gpus -}}
{{- $_ := set $gpus .id . -}}
{{- end -}}
{{- $engines := list -}}
{{- $owners := dict -}}
{{- range $id := keys .Values.models | sortAlpha -}}
{{- $wanted := get $root.Values.models $id -}}
{{- if ne (toString $wanted.enabled) "false" -}}
{{- if not (hasKey $entries $id) -}}
{{- fail (printf "models.%s: the registry has no such model; vLLM serves %s" $id (sortAlpha $served | join ", ")) -}}
{{- end -}}
{{- $engine := include "simsa.engine" (dict "root" $root "id" $id "wanted" $wanted "entry" (get $entries $id) "gpus" $gpus) | fromJson -}}
{{- if hasKey $owners $engine.name -}}
{{- fail (printf "models.%s: its objects would have the names of %s's: rename one of them in the registry" $id (get $owners $engine.name)) -}}
{{- end -}}
{{- $_ := set $owners $engine.name $id -}}
{{- $engines = append $engines $engine -}}
{{- end -}}
{{- end -}}
{{- if and $engines .Values.hostedApisOnly -}}
{{- fail "hostedApisOnly: it says that no engine is to run, but models places some" -}}
{{- end -}}
{{- if not (or $engines .Values.hostedApisOnly) -}}
{{- fail "models: no engine would run; place a model, e.g. models: {Midm-2.0-Base-Instruct: {gpu: h100-sxm}} with gpus: {h100-sxm: {}}, or say hostedApisOnly: true" -}}
{{- end -}}
{{- dict "engines" $engines | toJson -}}
{{- end -}}

{{/* One engine as JSON: {root, id, wanted, entry, gpus}. */}}
{{- define "simsa.engine" -}}
{{- $serving := .entry.serving | default dict -}}
{{- $weights := .entry.weights | default dict -}}
{{- $where := printf "models.%s" .id -}}
{{- include "simsa.refuseUnservable" (dict "where" $where "serving" $serving "weights" $weights "wanted" .wanted) -}}
{{- $version := include "simsa.vllmVersion" (dict "where" $where "serving" $serving "own" .wanted.vllm "newest" .root.Values.engines.vllm) -}}
{{- $given := include "simsa.parallelism" $serving | fromJson -}}
{{- $nodes := int (.wanted.nodes | default 1) -}}
{{- $gpus := include "simsa.gpusPerNode" (dict "where" $where "given" $given "wanted" .wanted "nodes" $nodes) | int -}}
{{- include "simsa.refuseUnplaced" (dict "where" $where "root" .root "wanted" .wanted "gpus" .gpus "nodes" $nodes) -}}
{{- if and (gt $nodes 1) (semverCompare "<0.12.0" $version) -}}
{{- fail (printf "%s.nodes: vLLM %s, the newest that serves it, does not span nodes by itself (0.12 does)" $where $version) -}}
{{- end -}}
{{- $bytes := include "simsa.weightsBytes" .entry -}}
{{- $memory := include "simsa.number" (include "simsa.text" (get .gpus .wanted.gpu).memory) -}}
{{- if and $bytes $memory (gt (float64 $bytes) (mulf $memory $gpus $nodes)) -}}
{{- fail (printf "%s: its weights alone take %.0f GB, which %d GPU(s) of %.0f GB do not hold; give it more with gpus" $where (divf $bytes 1e9) (mul $gpus $nodes) (divf $memory 1e9)) -}}
{{- end -}}
{{- dict
  "id" .id
  "name" (include "simsa.engineName" .)
  "slug" (include "simsa.cut" (dict "text" (include "simsa.slug" .id) "most" 63))
  "repo" $weights.repo
  "revision" ($weights.revision | default "")
  "servedName" ($serving.served_model_name | default .id)
  "args" (include "simsa.engineArguments" (dict "entry" .entry "given" $given "version" $version "gpus" $gpus "nodes" $nodes "listen" .root.Values.listen "drain" .root.Values.engines.drainSeconds) | fromJsonArray)
  "vllm" $version
  "image" (include "simsa.engineImage" (dict "root" .root "where" $where "wanted" .wanted "version" $version))
  "drains" (semverCompare ">=0.18.0" $version)
  "gpu" .wanted.gpu
  "gpus" $gpus
  "nodes" $nodes
  "replicas" (hasKey .wanted "replicas" | ternary .wanted.replicas 1)
  "scaling" .wanted.scaling
  "claim" (.wanted.existingClaim | default "")
  "storageGi" (include "simsa.storageGi" (dict "where" $where "wanted" .wanted "bytes" $bytes))
  "startupSeconds" (include "simsa.startupSeconds" (dict "serving" $serving "unknown" .root.Values.engines.startupSeconds))
  | toJson -}}
{{- end -}}

{{/* {root, id}: of 46 signs at most, which leaves room for what is put after it. */}}
{{- define "simsa.engineName" -}}
{{- $release := include "simsa.fullname" .root -}}
{{- $model := include "simsa.slug" .id -}}
{{- if gt (add (len $release) 8 (len $model)) 46 -}}
{{- $release = include "simsa.cut" (dict "text" $release "most" 14) -}}
{{- $model = include "simsa.cut" (dict "text" $model "most" (sub 38 (len $release))) -}}
{{- end -}}
{{- printf "%s-engine-%s" $release $model -}}
{{- end -}}

{{- define "simsa.slug" -}}
{{- regexReplaceAll "[^a-z0-9]+" (lower .) "-" | trimAll "-" -}}
{{- end -}}

{{/* {where, serving, weights, wanted}. A reason beside max_vllm concerns newer versions: the older image serves it. */}}
{{- define "simsa.refuseUnservable" -}}
{{- if ne .serving.kind "vllm" -}}
{{- fail (printf "%s: no engine of ours serves it, as the registry says kind %s%s" .where .serving.kind (.serving.reason | empty | ternary "" (printf ": %s" .serving.reason))) -}}
{{- end -}}
{{- if and .serving.reason (not .serving.max_vllm) -}}
{{- fail (printf "%s: the registry says why nothing serves it: %s" .where .serving.reason) -}}
{{- end -}}
{{- if not .weights.repo -}}
{{- fail (printf "%s: the registry names no weights to serve (weights.repo)" .where) -}}
{{- end -}}
{{- if and (eq (.serving.backend | default "") "vllm_plugin") (not .wanted.image) -}}
{{- fail (printf "%s.image: vLLM serves it with its vendor's plugin only; name an image that has it" .where) -}}
{{- end -}}
{{- end -}}

{{/* {where, serving, own, newest}: the version of values, or the last one that the registry says serves it. */}}
{{- define "simsa.vllmVersion" -}}
{{- $version := include "simsa.version" (.own | default .newest) -}}
{{- $key := .own | empty | ternary "engines.vllm" (printf "%s.vllm" .where) -}}
{{- with .serving.max_vllm -}}
{{- $last := include "simsa.version" . -}}
{{- if semverCompare (printf "<%s" $version) $last -}}
{{- $version = $last -}}
{{- end -}}
{{- end -}}
{{- if .serving.min_vllm -}}
{{- if semverCompare (printf "<%s" (include "simsa.version" .serving.min_vllm)) $version -}}
{{- fail (printf "%s: the registry asks for vLLM %s or newer, but %s is %s" .where .serving.min_vllm $key $version) -}}
{{- end -}}
{{- end -}}
{{- $version -}}
{{- end -}}

{{/* {root, where, wanted, version} */}}
{{- define "simsa.engineImage" -}}
{{- if .wanted.image -}}
{{- include "simsa.image" (dict "root" .root "image" .wanted.image "tag" (printf "v%s" .version) "where" (printf "%s.image" .where)) -}}
{{- else -}}
{{- $image := dict "repository" .root.Values.engines.image.repository "digest" (get .root.Values.engines.image.digests .version) -}}
{{- include "simsa.image" (dict "root" .root "image" $image "tag" (printf "v%s" .version) "where" "engines.image") -}}
{{- end -}}
{{- end -}}

{{/* How the registry's arguments split a model over GPUs: {tensor, pipeline, data}, 0 where they do not say. */}}
{{- define "simsa.parallelism" -}}
{{- $found := dict "tensor" 0 "pipeline" 0 "data" 0 -}}
{{- $names := dict "--tensor-parallel-size" "tensor" "-tp" "tensor" "--pipeline-parallel-size" "pipeline" "-pp" "pipeline" "--data-parallel-size" "data" "-dp" "data" -}}
{{- $awaited := "" -}}
{{- range .args -}}
{{- $word := include "simsa.text" . -}}
{{- if $awaited -}}
{{- $_ := set $found $awaited (int $word) -}}
{{- $awaited = "" -}}
{{- else -}}
{{- $parts := splitList "=" $word -}}
{{- $meant := get $names (first $parts) -}}
{{- if and $meant (gt (len $parts) 1) -}}
{{- $_ := set $found $meant (last $parts | int) -}}
{{- else -}}
{{- $awaited = $meant -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- toJson $found -}}
{{- end -}}

{{/* {where, given, wanted, nodes} */}}
{{- define "simsa.gpusPerNode" -}}
{{- $says := gt (add (int .given.tensor) (int .given.pipeline) (int .given.data)) 0 -}}
{{- $world := mul (max 1 (int .given.tensor)) (max 1 (int .given.pipeline)) (max 1 (int .given.data)) -}}
{{- if and $says .wanted.gpus -}}
{{- fail (printf "%s.gpus: the registry's arguments say how many GPUs an engine has (%d); leave it out here" .where $world) -}}
{{- end -}}
{{- if and $says (mod $world .nodes) -}}
{{- fail (printf "%s.nodes: %d GPUs, as the registry's arguments say, do not divide by %d nodes" .where $world .nodes) -}}
{{- end -}}
{{- $says | ternary (div $world .nodes) (int (.wanted.gpus | default 1)) -}}
{{- end -}}

{{/* {where, root, wanted, gpus, nodes} */}}
{{- define "simsa.refuseUnplaced" -}}
{{- if not (hasKey .gpus .wanted.gpu) -}}
{{- fail (printf "%s.gpu: the registry has no GPU %q; it has %s" .where .wanted.gpu (keys .gpus | sortAlpha | join ", ")) -}}
{{- end -}}
{{- if not (hasKey .root.Values.gpus .wanted.gpu) -}}
{{- fail (printf "%s.gpu: gpus.%s does not say where such GPUs are; write at least gpus: {%s: {}}" .where .wanted.gpu .wanted.gpu) -}}
{{- end -}}
{{- /* Of a maker the registry has the device's name alone. */ -}}
{{- $place := get .root.Values.gpus .wanted.gpu | default dict -}}
{{- $name := (get .gpus .wanted.gpu).name | default "" | toString -}}
{{- $isForeign := not (or (hasPrefix "nvidia" (lower $name)) (hasPrefix "nvidia.com/" ($place.resource | default ""))) -}}
{{- $hasImage := or .wanted.image (ne .root.Values.engines.image.repository "vllm/vllm-openai") -}}
{{- if and $isForeign (not (and $place.resource $hasImage)) -}}
{{- fail (printf "%s.gpu: %s is %q in the registry, and vLLM's own images and nvidia.com/gpu are for NVIDIA's; say what nodes offer it as (gpus.%s.resource, such as amd.com/gpu) and an image that is built for it (%s.image, or engines.image for all); if it is NVIDIA's, gpus.%s.resource: nvidia.com/gpu is enough" .where .wanted.gpu $name .wanted.gpu .where .wanted.gpu) -}}
{{- end -}}
{{- if and (gt .nodes 1) (not .root.Values.leaderWorkerSet.enabled) -}}
{{- fail (printf "%s.nodes: an engine over several nodes is a LeaderWorkerSet; install its operator and set leaderWorkerSet.enabled" .where) -}}
{{- end -}}
{{- $scaling := .wanted.scaling | default dict -}}
{{- $most := $scaling.maxReplicas | default (hasKey .wanted "replicas" | ternary .wanted.replicas 1) -}}
{{- $pods := mul (int $most) .nodes -}}
{{- if and (gt $pods 1) (not .wanted.existingClaim) (ne .root.Values.engines.storage.accessMode "ReadWriteMany") -}}
{{- fail (printf "%s: %d pods cannot read one ReadWriteOnce volume from several nodes; set engines.storage.accessMode to ReadWriteMany with a storageClass that has it (weights are fetched anew, into another volume), or give existingClaim" .where $pods) -}}
{{- end -}}
{{- if and .wanted.scaling (hasKey .wanted "replicas") -}}
{{- fail (printf "%s: either replicas or scaling, not both" .where) -}}
{{- end -}}
{{- if and .wanted.scaling (gt (int ($scaling.minReplicas | default 1)) (int $most)) -}}
{{- fail (printf "%s.scaling: minReplicas is more than maxReplicas" .where) -}}
{{- end -}}
{{- if and .wanted.scaling (not .root.Values.monitoring.enabled) -}}
{{- fail (printf "%s.scaling: it reads the gateway's series, which are only scraped with monitoring.enabled" .where) -}}
{{- end -}}
{{- if and .wanted.scaling (not .root.Values.monitoring.prometheusUrl) -}}
{{- fail (printf "%s.scaling: KEDA asks Prometheus for the load; say where it is with monitoring.prometheusUrl" .where) -}}
{{- end -}}
{{- end -}}

{{/* {where, wanted, bytes}: a fifth more than the weights, for the tokenizer and files that are being written. */}}
{{- define "simsa.storageGi" -}}
{{- if .wanted.storageGi -}}
{{- int .wanted.storageGi -}}
{{- else if .bytes -}}
{{- add 4 (int (ceil (divf (mulf .bytes 1.2) 1073741824.0))) -}}
{{- else if not .wanted.existingClaim -}}
{{- fail (printf "%s.storageGi: the registry knows neither size nor parameters of its weights; say how large their volume is" .where) -}}
{{- end -}}
{{- end -}}

{{/* {serving, unknown}: what a start may take before it is given up; a cold disk takes twice what was measured. */}}
{{- define "simsa.startupSeconds" -}}
{{- if .serving.startup_s -}}
{{- max 120 (int (ceil (mulf .serving.startup_s 2))) -}}
{{- else -}}
{{- int .unknown -}}
{{- end -}}
{{- end -}}

{{/*
vLLM's own arguments as a JSON array: {entry, given, version, gpus, nodes, listen, drain}. The registry's stand last and win, as
where `simsa up` starts an engine (gateway/checkpoints/commands.py).
*/}}
{{- define "simsa.engineArguments" -}}
{{- $serving := .entry.serving -}}
{{- $weights := .entry.weights -}}
{{- $parsers := .entry.parsers | default dict -}}
{{- $own := list -}}
{{- $named := list -}}
{{- range $serving.args -}}
{{- $word := include "simsa.text" . -}}
{{- $own = append $own $word -}}
{{- $named = append $named (index (splitList "=" $word) 0) -}}
{{- end -}}
{{- $args := list $weights.repo "--served-model-name" ($serving.served_model_name | default .entry.id) "--host" .listen "--port" "8000" "--disable-uvicorn-access-log" -}}
{{- if semverCompare ">=0.18.0" .version -}}
{{- $args = concat $args (list "--shutdown-timeout" (include "simsa.text" .drain)) -}}
{{- end -}}
{{- $says := gt (add (int .given.tensor) (int .given.pipeline) (int .given.data)) 0 -}}
{{- $defaults := list
  (list "--revision" ($weights.revision | default ""))
  (list "--tensor-parallel-size" (and (not $says) (gt .gpus 1) | ternary (toString .gpus) ""))
  (list "--pipeline-parallel-size" (and (not $says) (gt .nodes 1) | ternary (toString .nodes) ""))
  (list "--reasoning-parser" ($parsers.reasoning | default ""))
  (list "--tool-call-parser" ($parsers.tools | default "")) -}}
{{- range $defaults -}}
{{- if and (index . 1) (not (has (index . 0) $named)) -}}
{{- $args = concat $args . -}}
{{- end -}}
{{- end -}}
{{- range $flag, $wanted := dict "--enable-auto-tool-choice" $parsers.tools "--trust-remote-code" $serving.trust_remote_code -}}
{{- if and $wanted (not (has $flag $named)) -}}
{{- $args = append $args $flag -}}
{{- end -}}
{{- end -}}
{{- concat $args $own | toJson -}}
{{- end -}}

{{/*
What an engine is scaled by: {root, engine}. Calls that this release's gateways have for the model, those that wait among
them; 0 before the first call, where it knows a replica; nothing where it knows none, which is then an error and no load of 0.
*/}}
{{- define "simsa.loadQuery" -}}
{{- $series := printf "{namespace=%q,job=%q,model=%q}" .root.Release.Namespace (include "simsa.fullname" .root) .engine.id -}}
{{- printf "sum(simsa_inflight_requests%[1]s) or 0 * count(simsa_replica_up%[1]s)" $series -}}
{{- end -}}
