{{/*
Named templates of the chart. `weft.*` with a component take (dict "root" $ "name" "weft-ca" "component" .Values.ca).
*/}}

{{/* Whether objects of the cluster belong to this release: "true" or "". */}}
{{- define "weft.cluster" -}}
{{- if ne .Values.resourceScope "namespace" }}true{{ end -}}
{{- end -}}

{{/* Whether objects of the namespace belong to this release: "true" or "". */}}
{{- define "weft.namespaced" -}}
{{- if ne .Values.resourceScope "cluster" }}true{{ end -}}
{{- end -}}

{{/* Labels of every object: (dict "root" $ "name" "weft-ca"). */}}
{{- define "weft.labels" -}}
{{ include "weft.selector" . }}
app.kubernetes.io/part-of: weft
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version }}
{{- with .root.Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* What selectors select by: never changes in the life of a release. */}}
{{- define "weft.selector" -}}
app.kubernetes.io/name: {{ .name }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
{{- end -}}

{{/* The metadata of an object of the namespace: (dict "root" $ "name" "weft-ca"). */}}
{{- define "weft.metadata" -}}
name: {{ .name }}
namespace: {{ .root.Release.Namespace }}
labels:
  {{- include "weft.labels" . | nindent 2 }}
{{- with .root.Values.commonAnnotations }}
annotations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{/* The metadata of an object of the cluster: (dict "root" $ "name" "weft-ca"). */}}
{{- define "weft.clusterMetadata" -}}
name: {{ .name }}
labels:
  {{- include "weft.labels" . | nindent 2 }}
{{- with .root.Values.commonAnnotations }}
annotations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{/*
The metadata of a piece of the roles for people: (dict "root" $ "name" "weft-read" "to" ROLES "kubernetes" ROLES), which
are those of Weft and of Kubernetes that it is a part of.
*/}}
{{- define "weft.pieceMetadata" -}}
name: {{ .name }}
labels:
  {{- include "weft.labels" . | nindent 2 }}
  {{- range .to }}
  weftmesh.io/aggregate-to-{{ . }}: "true"
  {{- end }}
  {{- range .kubernetes }}
  rbac.authorization.k8s.io/aggregate-to-{{ . }}: "true"
  {{- end }}
{{- with .root.Values.commonAnnotations }}
annotations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{/* The metadata of a pod: (dict "root" $ "name" ... "component" ... "metrics" 15014). */}}
{{- define "weft.podMetadata" -}}
labels:
  {{- include "weft.labels" . | nindent 2 }}
  {{- if .serving }}
  weftmesh.io/in-service: "true"
  {{- end }}
  {{- with .component.podLabels }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- $annotations := dict "kubectl.kubernetes.io/default-container" .name }}
{{- if .serving }}
{{- /* One that was replaced belongs to no DaemonSet any more, and must not keep an autoscaler from taking its node away. */}}
{{- $_ := set $annotations "cluster-autoscaler.kubernetes.io/safe-to-evict" "true" }}
{{- end }}
{{- if .root.Values.metrics.annotations }}
{{- $_ := set $annotations "prometheus.io/scrape" "true" }}
{{- $_ := set $annotations "prometheus.io/port" (print .metrics) }}
{{- $_ := set $annotations "prometheus.io/path" "/metrics" }}
{{- end }}
annotations:
  {{- mergeOverwrite $annotations (deepCopy .root.Values.commonAnnotations) (deepCopy .component.podAnnotations) | toYaml | nindent 2 }}
{{- end -}}

{{/* The name of an image: (dict "root" $ "image" "weft-ca"). */}}
{{- define "weft.imageName" -}}
{{- printf "%s/%s:%s" .root.Values.image.registry .image (.root.Values.image.tag | default .root.Chart.AppVersion) -}}
{{- end -}}

{{/* Image and pull policy of a container: (dict "root" $ "image" "weft-ca"). */}}
{{- define "weft.image" -}}
image: {{ include "weft.imageName" . | quote }}
imagePullPolicy: {{ .root.Values.image.pullPolicy }}
{{- end -}}

{{/* What a pod is pulled by and where it runs. */}}
{{- define "weft.scheduling" -}}
{{- with .root.Values.imagePullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .component.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with .component.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .component.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .component.affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{/* Topology spread with the component's own labels; pods of an older revision don't count. */}}
{{- define "weft.spread" -}}
{{- if .component.topologySpreadConstraints }}
topologySpreadConstraints:
  {{- range .component.topologySpreadConstraints }}
  - {{ toYaml . | nindent 4 | trim }}
    labelSelector:
      matchLabels:
        {{- include "weft.selector" $ | nindent 8 }}
    matchLabelKeys: [pod-template-hash]
  {{- end }}
{{- end }}
{{- end -}}

{{/* The security context of a container that needs no privilege at all. */}}
{{- define "weft.unprivileged" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
privileged: false
capabilities:
  drop: [ALL]
seccompProfile:
  type: RuntimeDefault
{{- end -}}

{{/* A pod-bound token that only the mesh takes: it says nothing to the API server. */}}
{{- define "weft.tokenVolume" -}}
- name: token
  projected:
    sources:
      - serviceAccountToken:
          path: weft
          audience: weft
          expirationSeconds: 3600
{{- end -}}

{{/* The mesh's roots. Not optional: nothing starts that couldn't know whom to trust. The authority writes it. */}}
{{- define "weft.trustVolume" -}}
- name: trust
  configMap:
    name: weft-trust
{{- end -}}

{{- define "weft.tokenMount" -}}
- name: token
  mountPath: /var/run/secrets/tokens
  readOnly: true
{{- end -}}

{{- define "weft.trustMount" -}}
- name: trust
  mountPath: /var/run/secrets/weft
  readOnly: true
{{- end -}}

{{/* A variable with a field of the pod: (dict "name" "NODE_NAME" "field" "spec.nodeName"). */}}
{{- define "weft.fieldEnv" -}}
- name: {{ .name }}
  valueFrom:
    fieldRef:
      fieldPath: {{ .field }}
{{- end -}}

{{/* Directories of the node, for the platforms that have them elsewhere. */}}
{{- define "weft.cniConfDir" -}}
{{- $known := dict "k3s" "/var/lib/rancher/k3s/agent/etc/cni/net.d" "openshift" "/etc/kubernetes/cni/net.d" "microk8s" "/var/snap/microk8s/current/args/cni-network" -}}
{{- .Values.cni.confDir | default (get $known .Values.platform) | default "/etc/cni/net.d" -}}
{{- end -}}

{{- define "weft.cniBinDir" -}}
{{- $known := dict "gke" "/home/kubernetes/bin" "k3s" "/var/lib/rancher/k3s/data/cni" "openshift" "/var/lib/cni/bin" "microk8s" "/var/snap/microk8s/current/opt/cni/bin" -}}
{{- .Values.cni.binDir | default (get $known .Values.platform) | default "/opt/cni/bin" -}}
{{- end -}}

{{- define "weft.netnsDir" -}}
{{- $known := dict "minikube" "/var/run/docker/netns" -}}
{{- .Values.cni.netnsDir | default (get $known .Values.platform) | default "/run/netns" -}}
{{- end -}}

{{/* Annotations of an object of `helm test`: (list WEIGHT $). */}}
{{- define "weft.testHook" -}}
helm.sh/hook: test
helm.sh/hook-weight: {{ index . 0 | quote }}
helm.sh/hook-delete-policy: before-hook-creation,hook-succeeded
# Helm prints what each check found: when one fails, its namespace goes with all the others.
helm.sh/hook-output-log-policy: hook-succeeded,hook-failed
{{- with (index . 1).Values.commonAnnotations }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* The metadata of an object in the namespace of `helm test`: (dict "root" $ "name" ... "weight" ...). */}}
{{- define "weft.testMetadata" -}}
name: {{ .name }}
namespace: {{ .root.Values.test.namespace }}
labels:
  {{- include "weft.labels" (dict "root" .root "name" (print "weft-test-" .name)) | nindent 2 }}
annotations:
  {{- include "weft.testHook" (list .weight .root) | nindent 2 }}
{{- end -}}

{{/* The pods of Gateways, in any namespace, as a NetworkPolicyPeer. */}}
{{- define "weft.gatewayPeer" -}}
- namespaceSelector: {}
  podSelector:
    matchExpressions:
      - key: gateway.networking.k8s.io/gateway-name
        operator: Exists
    matchLabels:
      app.kubernetes.io/managed-by: weft-controller
{{- end -}}
