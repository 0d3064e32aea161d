package install

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/lateen-mesh/lateen/control/config"
)

// Bounds of what is read.
const (
	maxFile = 1 << 20
	maxSets = 1000
)

const (
	apiVersion      = "install.istio.io/v1alpha1"
	kind            = "IstioOperator"
	defaultProfile  = "default"
	defaultRevision = "default"
)

// Profiles are the names of the profiles there are, in order.
func Profiles() []string {
	entries, err := fs.ReadDir(files, "profiles")
	if err != nil {
		return nil
	}
	var names []string
	for _, e := range entries {
		names = append(names, strings.TrimSuffix(e.Name(), ".yaml"))
	}
	slices.Sort(names)
	return names
}

// A reader turns an Input into one spec.
type reader struct {
	shape    shape
	moves    []move
	warnings []string
	force    bool // faults are warnings
}

// A setting is one --set, read.
type setting struct {
	written string
	path    []step // where it leads now
	node    *yaml.Node
}

// resolve merges all that an input says.
func resolve(in Input) (spec map[string]any, profile string, warnings []string, err error) {
	r := &reader{force: in.Force}
	if r.shape, err = shapeOfSpec(); err != nil {
		return nil, "", nil, err
	}
	if r.moves, err = moves(); err != nil {
		return nil, "", nil, err
	}
	layers, err := r.files(in)
	if err != nil {
		return nil, "", nil, err
	}
	settings, err := r.settings(in.Set)
	if err != nil {
		return nil, "", nil, err
	}
	profile = cmp.Or(in.Profile, defaultProfile)
	for _, l := range layers {
		profile = cmp.Or(text(l, "profile"), profile)
	}
	for _, s := range settings {
		if pathText(s.path) == "profile" {
			profile = s.node.Value
		}
	}
	if spec, err = r.profile(profile, in.Local != nil); err != nil {
		return nil, "", nil, err
	}
	for _, l := range layers {
		spec = lay(spec, l)
	}
	for _, s := range settings {
		if spec, err = r.set(spec, s); err != nil {
			return nil, "", nil, fmt.Errorf("--set %s: %w", s.written, err)
		}
	}
	spec["profile"] = profile
	return spec, profile, r.warnings, nil
}

// profile reads a profile of ours over the default one.
func (r *reader) profile(name string, local bool) (map[string]any, error) {
	if !slices.Contains(Profiles(), name) {
		return nil, fmt.Errorf("profile %q: there is none of that name, but %s", name, strings.Join(Profiles(), ", "))
	}
	names := []string{"profiles/" + defaultProfile + ".yaml"}
	if name != defaultProfile {
		names = append(names, "profiles/"+name+".yaml")
	}
	if local {
		names = append(names, "local.yaml")
	}
	var spec map[string]any
	for _, n := range names {
		tree, err := embedded(n)
		if err != nil {
			return nil, err
		}
		spec = lay(spec, mapping(tree, "spec"))
	}
	if local && name == defaultProfile { // both gateways are part of what users of one machine look at
		spec = lay(spec, map[string]any{"components": map[string]any{
			"egressGateways": []any{map[string]any{"name": "istio-egressgateway", "enabled": true}}}})
	}
	return spec, nil
}

// files reads the specs of all files.
func (r *reader) files(in Input) ([]map[string]any, error) {
	var layers []map[string]any
	for i, content := range in.Files {
		name := fmt.Sprintf("file %d", i+1)
		if i < len(in.Names) {
			name = in.Names[i]
		}
		if len(content) > maxFile {
			return nil, fmt.Errorf("%s: more than %d bytes", name, maxFile)
		}
		decoder := yaml.NewDecoder(bytes.NewReader(content))
		for {
			var doc yaml.Node
			err := decoder.Decode(&doc)
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				return nil, fmt.Errorf("%s: %w", name, err)
			}
			layer, err := r.document(name, &doc)
			if err != nil {
				return nil, err
			}
			if layer != nil {
				layers = append(layers, layer)
			}
		}
	}
	return layers, nil
}

// document reads the spec of one object, nil where it has none.
func (r *reader) document(name string, doc *yaml.Node) (map[string]any, error) {
	if len(doc.Content) == 0 || doc.Content[0].Tag == "!!null" {
		return nil, nil
	}
	n := doc.Content[0]
	if n.Kind != yaml.MappingNode {
		return nil, fmt.Errorf("%s:%d: must be an object of kind %s", name, n.Line, kind)
	}
	if k := child(n, "kind"); k == nil || k.Value != kind {
		return nil, fmt.Errorf("%s:%d: must be of kind %s", name, n.Line, kind)
	}
	if v := child(n, "apiVersion"); v != nil && v.Value != apiVersion {
		return nil, fmt.Errorf("%s:%d: apiVersion %s: must be %s", name, v.Line, v.Value, apiVersion)
	}
	spec := child(n, "spec")
	if spec == nil || spec.Tag == "!!null" {
		return nil, nil
	}
	if spec.Kind != yaml.MappingNode {
		return nil, fmt.Errorf("%s:%d: spec: must be a mapping", name, spec.Line)
	}
	return r.spec(name, spec)
}

// spec reads one spec: fields of old versions are moved first, then all are checked.
func (r *reader) spec(name string, n *yaml.Node) (map[string]any, error) {
	for _, m := range r.moves {
		value := cut(n, m.from)
		if value == nil {
			continue
		}
		if m.warning != "" {
			r.warnings = append(r.warnings, fmt.Sprintf("%s:%d: %s", name, value.Line, m.warning))
		}
		if len(m.to) > 0 {
			paste(n, m.to, value)
		}
	}
	faults := append(check(n, r.shape, ""), checkMesh(child(n, "meshConfig"))...)
	for _, f := range faults {
		if !r.force {
			return nil, fmt.Errorf("%s:%d: %w", name, f.line, f.err)
		}
		r.warnings = append(r.warnings, fmt.Sprintf("%s:%d: %v", name, f.line, f.err))
	}
	layer := map[string]any{}
	if err := n.Decode(&layer); err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return layer, nil
}

// checkMesh finds what is wrong in a part of a MeshConfig; a field that there is not is an error.
func checkMesh(n *yaml.Node) (faults []fault) {
	if n == nil || n.Tag == "!!null" {
		return nil
	}
	content, err := yaml.Marshal(n)
	if err != nil {
		return []fault{{n.Line, fmt.Errorf("meshConfig: %w", err)}}
	}
	_, problems := config.DecodeMeshConfig("", content)
	for _, p := range problems {
		if p.Severity == config.Error || p.Severity == config.Warning && p.Field != "" {
			field := strings.TrimSuffix("meshConfig."+p.Field, ".")
			faults = append(faults, fault{lineOf(n, p.Field), fmt.Errorf("%s: %s", field, p.Message)})
		}
	}
	return faults
}

// lineOf is the line of a field below a node, or of what is nearest above it.
func lineOf(n *yaml.Node, field string) int {
	line := n.Line
	for key := range strings.SplitSeq(field, ".") {
		key, _, _ = strings.Cut(key, "[")
		below := child(n, key)
		if below == nil {
			break
		}
		n, line = below, below.Line
	}
	return line
}

// settings reads all --set.
func (r *reader) settings(written []string) ([]setting, error) {
	if len(written) > maxSets {
		return nil, fmt.Errorf("--set: more than %d", maxSets)
	}
	var all []setting
	for _, w := range written {
		s, ok, err := r.setting(w)
		if err != nil {
			return nil, fmt.Errorf("--set %s: %w", w, err)
		}
		if ok {
			all = append(all, s)
		}
	}
	return all, nil
}

func (r *reader) setting(written string) (s setting, ok bool, err error) {
	key, value, ok := strings.Cut(written, "=")
	if !ok {
		return s, false, errors.New("must be PATH=VALUE")
	}
	path, err := parsePath(strings.TrimPrefix(key, "spec."))
	if err != nil {
		return s, false, fmt.Errorf("the path %w", err)
	}
	path, warning, ok := movePath(r.moves, path)
	if warning != "" {
		r.warnings = append(r.warnings, "--set "+written+": "+warning)
	}
	if !ok {
		return s, false, nil
	}
	s = setting{written: written, path: path}
	s.node, err = valueNode(value)
	if err != nil {
		return s, false, err
	}
	return s, true, r.checkSetting(s)
}

// valueNode reads the value of a --set: YAML, but {a,b} is a list, "\," is a comma, and what
// YAML would not take is text.
func valueNode(value string) (*yaml.Node, error) {
	value = strings.ReplaceAll(value, `\,`, ",")
	if inner, ok := strings.CutPrefix(value, "{"); ok && strings.HasSuffix(inner, "}") && !strings.Contains(inner, ":") {
		value = "[" + strings.TrimSuffix(inner, "}") + "]"
	}
	var doc yaml.Node
	if err := yaml.Unmarshal([]byte(value), &doc); err != nil || len(doc.Content) == 0 {
		return &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Value: value}, nil
	}
	n := doc.Content[0]
	if n.Kind == yaml.AliasNode {
		return nil, errors.New("an alias means nothing here")
	}
	return n, nil
}

// checkSetting checks the path and the value of a --set as if they stood in a file.
func (r *reader) checkSetting(s setting) error {
	n := &yaml.Node{Kind: yaml.MappingNode}
	paste(n, s.path, s.node)
	faults := check(n, r.shape, "")
	if s.path[0].key == "meshConfig" {
		faults = append(faults, checkMesh(child(n, "meshConfig"))...)
	}
	for _, f := range faults {
		if !r.force {
			return f.err
		}
		r.warnings = append(r.warnings, "--set "+s.written+": "+f.err.Error())
	}
	return nil
}

func (r *reader) set(spec map[string]any, s setting) (map[string]any, error) {
	var value any
	if err := s.node.Decode(&value); err != nil {
		return nil, err
	}
	tree, err := put(spec, s.path, value)
	if err != nil {
		return nil, err
	}
	spec, _ = tree.(map[string]any)
	return spec, nil
}
