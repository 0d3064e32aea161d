package local

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strconv"
	"sync"

	"sigs.k8s.io/yaml"

	"github.com/lateen-mesh/lateen/control/config"
	"github.com/lateen-mesh/lateen/control/file"
	"github.com/lateen-mesh/lateen/install"
	"github.com/lateen-mesh/lateen/local/apply"
)

// engineObject is the ConfigMap that tells an installer where this engine has what a cluster has
// not: the fields of install.Local.
const engineObject = "lateen-engine"

// A meshObjects is what the engine itself has in the API: the installation of the mesh, and where
// it finds the engine. Safe for concurrent use.
type meshObjects struct {
	o     Options
	local install.Local

	mu   sync.Mutex
	last []apply.Own
}

// newMeshObjects renders the objects for the first time; what is wrong with flags and files fails.
func newMeshObjects(o Options, l install.Local) (*meshObjects, error) {
	m := &meshObjects{o: o, local: l}
	return m, m.render()
}

// all are the objects of the last rendering that succeeded.
func (m *meshObjects) all() []apply.Own {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.last
}

// follow renders again whenever the file with the MeshConfig changes, and calls changed then.
func (m *meshObjects) follow(ctx context.Context, s *supervisor, changed func(context.Context)) {
	if m.o.MeshConfig == "" {
		return
	}
	file.Follow(ctx, m.o.MeshConfig, s.log(), func() {
		if err := m.render(); err != nil {
			s.log().Error("the mesh configuration stays as it was", "error", err)
			return
		}
		changed(ctx)
	})
}

func (m *meshObjects) render() error {
	in := install.Input{Set: m.o.Set, Local: &m.local}
	if m.o.MeshConfig != "" {
		text, err := operator(m.o.MeshConfig)
		if err != nil {
			return &Error{fmt.Errorf("MeshConfig: %w", err), "name a file with --meshConfig, or leave the flag out for the defaults"}
		}
		in.Files, in.Names = [][]byte{text}, []string{m.o.MeshConfig}
	}
	rendered, err := install.New(in)
	if err != nil {
		return err
	}
	objects, err := rendered.Objects()
	if err != nil {
		return err
	}
	var all []apply.Own
	for _, o := range objects {
		// The mesh configuration belongs to who changes it, unless it was given here.
		once := o.GetKind() == "ConfigMap" && o.GetName() == "istio" && m.o.MeshConfig == "" && len(m.o.Set) == 0
		if all, err = appendOwn(all, o.Object, once); err != nil {
			return err
		}
	}
	if all, err = appendOwn(all, m.engine(), false); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.last = all
	return nil
}

// engine is the object that says where the engine is.
func (m *meshObjects) engine() map[string]any {
	return map[string]any{
		"apiVersion": "v1", "kind": "ConfigMap", "metadata": map[string]any{"name": engineObject, "namespace": "kube-system"},
		"data": map[string]any{"sockets": m.local.Sockets, "control": m.local.Control,
			"httpPort": strconv.Itoa(m.local.HTTPPort), "httpsPort": strconv.Itoa(m.local.HTTPSPort)},
	}
}

func appendOwn(all []apply.Own, object map[string]any, once bool) ([]apply.Own, error) {
	text, err := json.Marshal(object)
	if err != nil {
		return nil, err
	}
	docs, problems := config.Documents("", text) // of no file
	if len(problems) > 0 {
		return nil, problems[0]
	}
	for _, d := range docs {
		all = append(all, apply.Own{Document: d, Once: once})
	}
	return all, nil
}

// operator is a file with a MeshConfig as the file that an installer takes.
func operator(path string) ([]byte, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	settings := map[string]any{}
	if err := yaml.Unmarshal(text, &settings); err != nil {
		return nil, err
	}
	return yaml.Marshal(map[string]any{"apiVersion": "install.istio.io/v1alpha1", "kind": "IstioOperator",
		"spec": map[string]any{"meshConfig": settings}})
}

// installed is where the engine has the mesh's sockets, and which ports of this machine the ingress
// gateway's Service shows.
func (s *supervisor) installed() install.Local {
	l := install.Local{Sockets: s.state.socket(meshSockets), Control: s.state.socket(controlSockets)}
	if half := s.engine.outside; half != nil {
		l.HTTPPort, l.HTTPSPort = half.shown(80), half.shown(443)
	}
	return l
}

// shown is the port of this machine for a port of the gateway; the same where none is to be had now,
// of which its pod tells.
func (h *outsideHalf) shown(port int) int {
	h.mu.Lock()
	defer h.mu.Unlock()
	host, err := h.choose(port)
	if err != nil {
		return port
	}
	return host
}

// choose is where this machine has a port of a pod: as --publish says, else the port itself where
// that is allowed and free, else port + 8000. The caller holds the lock.
func (h *outsideHalf) choose(port int) (int, error) {
	if host, ok := h.published[port]; ok {
		return host, nil
	}
	candidates := []int{port, port + publishOffset}
	if host, ok := h.o.Publish[port]; ok {
		candidates = []int{host}
	}
	var reasons []error
	for _, host := range candidates {
		err := h.ports.gateway(host) // nobody else has it, and no other mesh will
		if err == nil {
			h.published[port] = host
			return host, nil
		}
		reasons = append(reasons, err)
	}
	return 0, fmt.Errorf("port %d of a pod: %w", port, errors.Join(reasons...))
}
