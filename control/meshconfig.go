package control

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"go.yaml.in/yaml/v3"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	meshconfig "istio.io/api/mesh/v1alpha1"

	"github.com/lateen-mesh/lateen/control/config"
	"github.com/lateen-mesh/lateen/control/file"
)

// maxMeshConfig bounds the file's size.
const maxMeshConfig = 4 << 20

// meshFile is the MeshConfig in force: from the ConfigMap "istio", else from a
// file, with settings over it. What is broken leaves the last good in force, also that of
// the last run.
type meshFile struct {
	path    string
	state   string // file that keeps the last good, "" for none
	set     []setting
	root    string // namespace of the ConfigMap
	log     *slog.Logger
	changed chan struct{}

	mu       sync.Mutex
	good     *meshconfig.MeshConfig
	networks *meshconfig.MeshNetworks // the last good of this run
	problems []config.Problem
}

// A setting is one "meshConfig.a.b=value".
type setting struct {
	path  []string
	value yaml.Node
}

func newMeshFile(o Options) (*meshFile, error) {
	m := &meshFile{path: o.MeshConfig, root: o.RootNamespace, log: o.Log.Scope("config"), changed: make(chan struct{}, 1), good: config.DefaultMeshConfig()}
	for _, s := range o.Set {
		parsed, err := parseSetting(s)
		if err != nil {
			return nil, fmt.Errorf("--set %s: %w", s, err)
		}
		m.set = append(m.set, parsed)
	}
	if o.State != "" {
		m.state = filepath.Join(o.State, "meshconfig.json")
		m.load()
	}
	_, problems := m.decode("", nil)
	for _, p := range problems {
		if p.Severity == config.Error {
			return nil, fmt.Errorf("--set %w", p)
		}
	}
	return m, nil
}

func parseSetting(s string) (setting, error) {
	key, value, ok := strings.Cut(s, "=")
	field, inMesh := strings.CutPrefix(key, "meshConfig.")
	if !ok || !inMesh || field == "" {
		return setting{}, errors.New("must be meshConfig.FIELD=VALUE")
	}
	out := setting{path: strings.Split(field, ".")}
	if slices.Contains(out.path, "") {
		return setting{}, errors.New("has an empty field name")
	}
	var doc yaml.Node
	if err := yaml.Unmarshal([]byte(value), &doc); err != nil {
		return setting{}, err
	}
	out.value = yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str"}
	if len(doc.Content) > 0 {
		out.value = *doc.Content[0]
	}
	return out, nil
}

// run follows the file.
func (m *meshFile) run(ctx context.Context) error {
	file.Follow(ctx, m.path, m.log, func() {
		select {
		case m.changed <- struct{}{}:
		default:
		}
	})
	return nil
}

// resolve returns the MeshConfig in force for a set of objects: that of the ConfigMap
// "istio", else that of the file, with the settings over it. A broken one leaves the
// last good in force.
func (m *meshFile) resolve(set *config.Set) *meshconfig.MeshConfig {
	m.mu.Lock()
	defer m.mu.Unlock()
	mc, problems := m.read(set)
	m.problems = problems
	if !config.HasErrors(problems) {
		if !sameMeshConfig(m.good, mc) {
			m.save(mc)
		}
		m.good = mc
	}
	networks, wrong := config.MeshNetworksOf(set, m.root)
	if m.problems = append(m.problems, wrong...); networks != nil {
		m.networks = networks
	}
	return m.good
}

// meshNetworks are those in force since the last resolve.
func (m *meshFile) meshNetworks() *meshconfig.MeshNetworks {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.networks
}

// load takes what the last run left as the last good.
func (m *meshFile) load() {
	text, err := readBounded(m.state, maxMeshConfig)
	if err != nil {
		if !errors.Is(err, os.ErrNotExist) {
			m.log.Warn("saved mesh configuration cannot be read", "error", err)
		}
		return
	}
	mc := &meshconfig.MeshConfig{} // whole as it was, not over the defaults
	if err := (protojson.UnmarshalOptions{DiscardUnknown: true}).Unmarshal(text, mc); err != nil {
		m.log.Warn("saved mesh configuration cannot be read", "file", m.state, "error", err)
		return
	}
	m.good = mc
}

// save leaves the last good for the next run. A failure matters then only.
func (m *meshFile) save(mc *meshconfig.MeshConfig) {
	if m.state == "" {
		return
	}
	text, err := protojson.Marshal(mc)
	if err == nil {
		err = file.Replace(m.state, text)
	}
	if err != nil {
		m.log.Warn("mesh configuration cannot be saved", "error", err)
	}
}

// Problems are what was wrong at the last resolve.
func (m *meshFile) Problems() []config.Problem {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Clone(m.problems)
}

func (m *meshFile) read(set *config.Set) (*meshconfig.MeshConfig, []config.Problem) {
	if o, text := config.MeshConfigIn(set, m.root); o != nil {
		mc, problems := m.decode("", []byte(text))
		return mc, config.InMeshConfigMap(o, problems)
	}
	if m.path == "" {
		return m.decode("", nil)
	}
	text, err := readBounded(m.path, maxMeshConfig)
	if errors.Is(err, os.ErrNotExist) { // as the original: the defaults
		return m.decode("", nil)
	}
	if err != nil {
		return nil, []config.Problem{{Source: config.Source{File: m.path}, Message: err.Error()}}
	}
	return m.decode(m.path, text)
}

// decode reads the YAML with the settings over it. A problem that the text has by itself
// is shown where it is written there, others are those of the settings.
func (m *meshFile) decode(name string, text []byte) (*meshconfig.MeshConfig, []config.Problem) {
	if len(m.set) == 0 {
		return config.DecodeMeshConfig(name, text)
	}
	var doc yaml.Node
	if err := yaml.Unmarshal(text, &doc); err != nil {
		return config.DecodeMeshConfig(name, text) // says what is wrong
	}
	root := &yaml.Node{Kind: yaml.MappingNode}
	if len(doc.Content) > 0 && doc.Content[0].Kind == yaml.MappingNode {
		root = doc.Content[0]
	}
	for _, s := range m.set {
		put(root, s.path, s.value)
	}
	merged, err := yaml.Marshal(root)
	if err != nil {
		return nil, []config.Problem{{Source: config.Source{File: name}, Message: err.Error()}}
	}
	mc, problems := config.DecodeMeshConfig(name, merged)
	_, own := config.DecodeMeshConfig(name, text)
	for i, p := range problems {
		j := slices.IndexFunc(own, func(o config.Problem) bool { return o.Field == p.Field && o.Message == p.Message })
		if j >= 0 {
			problems[i] = own[j]
		} else {
			problems[i].Source, problems[i].Field = config.Source{}, strings.TrimSuffix("meshConfig."+p.Field, ".")
		}
	}
	return mc, problems
}

// put sets the value at a path, making the mappings on the way.
func put(m *yaml.Node, path []string, value yaml.Node) {
	i := 0
	for i < len(m.Content) && m.Content[i].Value != path[0] {
		i += 2
	}
	if i == len(m.Content) {
		m.Content = append(m.Content, &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Value: path[0]}, &yaml.Node{Kind: yaml.MappingNode})
	}
	if len(path) == 1 {
		m.Content[i+1] = &value
		return
	}
	if m.Content[i+1].Kind != yaml.MappingNode {
		m.Content[i+1] = &yaml.Node{Kind: yaml.MappingNode}
	}
	put(m.Content[i+1], path[1:], value)
}

func sameMeshConfig(a, b *meshconfig.MeshConfig) bool { return a == b || proto.Equal(a, b) }

func sameNetworks(a, b *meshconfig.MeshNetworks) bool { return a == b || proto.Equal(a, b) }

func readBounded(path string, limit int64) ([]byte, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if info.Size() > limit {
		return nil, fmt.Errorf("%s: %d bytes, at most %d are read", path, info.Size(), limit)
	}
	return os.ReadFile(path)
}
