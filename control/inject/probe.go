package inject

import (
	"encoding/json"
	"fmt"
	"maps"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

const (
	probersEnv   = "ISTIO_KUBE_APP_PROBERS"
	healthPath   = "/app-health/"
	lifecyclPath = "/app-lifecycle/"
)

// A prober tells the agent how to ask the application.
type prober struct {
	HTTPGet        *corev1.HTTPGetAction   `json:"httpGet,omitempty"`
	TCPSocket      *corev1.TCPSocketAction `json:"tcpSocket,omitempty"`
	GRPC           *corev1.GRPCAction      `json:"grpc,omitempty"`
	TimeoutSeconds int32                   `json:"timeoutSeconds,omitempty"`
}

// rewriteProbes sends the kubelet's probes of the application, and its hooks over HTTP, to
// the agent: the proxy would not let in what does not come from the mesh, and would answer a
// TCP probe itself. What the agent asks then is told to it in its environment.
func (p *injection) rewriteProbes() error {
	agent := findContainer(p.pod, ProxyContainer)
	port := p.statusPort()
	if agent == nil || port == 0 || !p.rewrites() {
		return nil
	}
	probers := map[string]prober{}
	rewrite := func(all []corev1.Container) {
		for i := range all {
			if all[i].Name != ProxyContainer {
				rewriteContainer(&all[i], port, probers)
			}
		}
	}
	rewrite(p.pod.Spec.Containers)
	rewrite(p.pod.Spec.InitContainers)
	if len(probers) == 0 {
		return p.keepEnv(agent, probersEnv)
	}
	if earlier := p.earlierEnv(agent, probersEnv); earlier != "" {
		known := map[string]prober{}
		if err := json.Unmarshal([]byte(earlier), &known); err != nil {
			return fmt.Errorf("container %s: environment variable %s: %w", ProxyContainer, probersEnv, err)
		}
		maps.Copy(known, probers)
		probers = known
	}
	text, err := json.Marshal(probers)
	if err != nil {
		return err
	}
	setEnv(agent, probersEnv, string(text))
	return nil
}

// rewrites is whether probes are rewritten: the pod's annotation, else the settings.
func (p *injection) rewrites() bool {
	if said, ok := p.Pod.Annotations[annotationRewrite]; ok {
		return truth(said)
	}
	return p.values.boolean("sidecarInjectorWebhook", "rewriteAppHTTPProbe")
}

// statusPort is where the agent answers; 0 is nowhere.
func (p *injection) statusPort() int {
	if said, ok := p.Pod.Annotations[annotationStatusPort]; ok {
		port, _ := strconv.Atoi(said) // checkAnnotations has judged it
		return port
	}
	return int(p.proxy.GetStatusPort())
}

// earlierEnv is what an injection before this one gave the agent in a variable: it is in the
// pod no more.
func (p *injection) earlierEnv(agent *corev1.Container, name string) string {
	for _, c := range []*corev1.Container{agent, p.old.find(ProxyContainer)} {
		if c == nil {
			continue
		}
		for _, e := range c.Env {
			if e.Name == name && e.Value != "" {
				return e.Value
			}
		}
	}
	return ""
}

func (p *injection) keepEnv(agent *corev1.Container, name string) error {
	if earlier := p.earlierEnv(agent, name); earlier != "" {
		setEnv(agent, name, earlier)
	}
	return nil
}

// rewriteContainer sends the probes and hooks of a container to the agent's port and notes
// what they were.
func rewriteContainer(c *corev1.Container, port int, into map[string]prober) {
	for name, probe := range map[string]*corev1.Probe{"readyz": c.ReadinessProbe, "livez": c.LivenessProbe, "startupz": c.StartupProbe} {
		if probe == nil {
			continue
		}
		path := healthPath + c.Name + "/" + name
		original := prober{HTTPGet: probe.HTTPGet, TCPSocket: probe.TCPSocket, GRPC: probe.GRPC, TimeoutSeconds: probe.TimeoutSeconds}
		if probe.HTTPGet = original.rewritten(c, path, port, into); probe.HTTPGet != original.HTTPGet {
			probe.TCPSocket, probe.GRPC = nil, nil
		}
	}
	if c.Lifecycle == nil {
		return
	}
	for name, hook := range map[string]*corev1.LifecycleHandler{"prestopz": c.Lifecycle.PreStop, "poststartz": c.Lifecycle.PostStart} {
		if hook == nil {
			continue
		}
		path := lifecyclPath + c.Name + "/" + name
		original := prober{HTTPGet: hook.HTTPGet, TCPSocket: hook.TCPSocket}
		if hook.HTTPGet = original.rewritten(c, path, port, into); hook.HTTPGet != original.HTTPGet {
			hook.TCPSocket = nil
		}
	}
}

// rewritten is what the kubelet asks instead, and notes the prober under the path that it
// asks. Commands stay the container's own, as does what goes to the agent already and what
// names a port that the container does not have.
func (p prober) rewritten(c *corev1.Container, path string, port int, into map[string]prober) *corev1.HTTPGetAction {
	ask := &corev1.HTTPGetAction{}
	switch {
	case p.HTTPGet != nil:
		if p.HTTPGet.Port.IntValue() == port && (strings.HasPrefix(p.HTTPGet.Path, healthPath) || strings.HasPrefix(p.HTTPGet.Path, lifecyclPath)) {
			return p.HTTPGet
		}
		number, ok := numbered(c, p.HTTPGet.Port)
		if !ok {
			return p.HTTPGet
		}
		ask = p.HTTPGet.DeepCopy()
		if ask.Scheme == corev1.URISchemeHTTPS {
			ask.Scheme = corev1.URISchemeHTTP
		}
		p.HTTPGet = p.HTTPGet.DeepCopy()
		p.HTTPGet.Port = number
	case p.TCPSocket != nil:
		number, ok := numbered(c, p.TCPSocket.Port)
		if !ok {
			return nil
		}
		p.TCPSocket = p.TCPSocket.DeepCopy()
		p.TCPSocket.Port = number
	case p.GRPC != nil:
	default:
		return nil
	}
	ask.Path, ask.Port = path, intstr.FromInt(port)
	into[path] = p
	return ask
}

// numbered is a port of a container by its number.
func numbered(c *corev1.Container, port intstr.IntOrString) (intstr.IntOrString, bool) {
	if port.Type == intstr.Int {
		return port, true
	}
	for _, known := range c.Ports {
		if known.Name == port.StrVal {
			return intstr.FromInt32(known.ContainerPort), true
		}
	}
	n, err := strconv.Atoi(port.StrVal)
	return intstr.FromInt(n), err == nil
}
