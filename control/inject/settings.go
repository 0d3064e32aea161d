package inject

import (
	_ "embed"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"text/template"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"sigs.k8s.io/yaml"
)

// SidecarTemplate and GatewayTemplate are ours for pods beside applications, and for gateways
// whose manifest leaves the proxy to injection.
var (
	//go:embed sidecar.yaml
	SidecarTemplate string
	//go:embed gateway.yaml
	GatewayTemplate string
)

// defaultTemplate is the template of a pod that names none.
const defaultTemplate = "sidecar"

// Settings are what the two keys of ConfigMap istio-sidecar-injector say, parsed. They do
// not change and may be used from any goroutine.
type Settings struct {
	templates   map[string]*template.Template
	texts       map[string]string // of templates
	aliases     map[string][]string
	usual       []string // templates of a pod that names none
	always      []labels.Selector
	never       []labels.Selector
	enabled     bool
	annotations map[string]string // of each injected pod
	values      tree
}

// document is the form of key "config".
type document struct {
	Policy              string                 `json:"policy,omitempty"`
	AlwaysInject        []metav1.LabelSelector `json:"alwaysInjectSelector,omitempty"`
	NeverInject         []metav1.LabelSelector `json:"neverInjectSelector,omitempty"`
	InjectedAnnotations map[string]string      `json:"injectedAnnotations,omitempty"`
	DefaultTemplates    []string               `json:"defaultTemplates,omitempty"`
	Aliases             map[string][]string    `json:"aliases,omitempty"`
	Template            string                 `json:"template,omitempty"` // of before there were several
	Templates           map[string]string      `json:"templates,omitempty"`
}

// Default returns the settings of our own templates and values.
func Default() *Settings {
	text, _, err := Render(nil)
	if err != nil {
		panic("inject: " + err.Error()) // of what is in the program
	}
	s, err := Parse(text, nil)
	if err != nil {
		panic("inject: " + err.Error())
	}
	return s
}

// Render makes the two keys of ConfigMap istio-sidecar-injector of an installation's values:
// our templates, those of values.sidecarInjectorWebhook.templates, and the policy; and the
// values, over the default ones, of which templates read the most. The error names what in
// the values is wrong.
func Render(values map[string]any) (configText, valuesText []byte, err error) {
	all := tree(overlay(DefaultValues(), copied(values)))
	hook, _ := all["sidecarInjectorWebhook"].(map[string]any)
	d := document{
		Policy:    all.text("global", "proxy", "autoInject"),
		Templates: map[string]string{defaultTemplate: SidecarTemplate, "gateway": GatewayTemplate},
	}
	var own document
	text, err := yaml.Marshal(hook)
	if err == nil {
		err = yaml.Unmarshal(text, &own)
	}
	if err != nil {
		return nil, nil, fmt.Errorf("values.sidecarInjectorWebhook: %w", err)
	}
	maps.Copy(d.Templates, own.Templates)
	d.AlwaysInject, d.NeverInject, d.InjectedAnnotations = own.AlwaysInject, own.NeverInject, own.InjectedAnnotations
	d.DefaultTemplates = own.DefaultTemplates
	if configText, err = yaml.Marshal(d); err != nil {
		return nil, nil, err
	}
	valuesText, err = yaml.Marshal(all)
	return configText, valuesText, err
}

// copied is a tree that shares nothing with v.
func copied(v map[string]any) map[string]any {
	c := make(map[string]any, len(v))
	for key, value := range v {
		if below, ok := value.(map[string]any); ok {
			value = copied(below)
		}
		c[key] = value
	}
	return c
}

// Parse reads the two keys of ConfigMap istio-sidecar-injector. A text that has no templates
// is taken for the template "sidecar" itself, as in the oldest versions. Values go over the
// default ones; none are the default ones.
func Parse(configText, valuesText []byte) (*Settings, error) {
	values, err := parseTree(valuesText)
	if err != nil {
		return nil, fmt.Errorf("values: %w", err)
	}
	var d document
	if err := yaml.Unmarshal(configText, &d); err == nil && d.Template != "" && len(d.Templates) == 0 {
		return nil, errors.New("config: it has one template, in the form of Istio 1.8 and before: give it as templates.sidecar, which renders a Pod")
	} else if err != nil || len(d.Templates) == 0 {
		if whole := strings.TrimSpace(string(configText)); whole == "" {
			return nil, errors.New("config: there are no templates in it")
		}
		d = document{Policy: d.Policy, Templates: map[string]string{defaultTemplate: string(configText)}}
	}
	s := &Settings{
		values: overlay(DefaultValues(), values), annotations: d.InjectedAnnotations, aliases: d.Aliases,
		enabled: d.Policy != "disabled", usual: d.DefaultTemplates, templates: map[string]*template.Template{}, texts: d.Templates,
	}
	if len(s.usual) == 0 {
		s.usual = []string{defaultTemplate}
	}
	if s.always, err = selectors("alwaysInjectSelector", d.AlwaysInject); err != nil {
		return nil, err
	}
	if s.never, err = selectors("neverInjectSelector", d.NeverInject); err != nil {
		return nil, err
	}
	for name, text := range d.Templates {
		if s.templates[name], err = parseTemplate(name, text); err != nil {
			return nil, fmt.Errorf("config: %w", err)
		}
	}
	return s, nil
}

// Templates are the texts of the templates, by name.
func (s *Settings) Templates() map[string]string { return maps.Clone(s.texts) }

func selectors(field string, all []metav1.LabelSelector) ([]labels.Selector, error) {
	var parsed []labels.Selector
	for i := range all {
		s, err := metav1.LabelSelectorAsSelector(&all[i])
		if err != nil {
			return nil, fmt.Errorf("config: %s[%d]: %w", field, i, err)
		}
		parsed = append(parsed, s)
	}
	return parsed, nil
}

// chosen are the templates of a pod, each once.
func (s *Settings) chosen(annotations map[string]string) ([]*template.Template, error) {
	names := s.usual
	where := "defaultTemplates"
	if said, ok := annotations[annotationTemplates]; ok {
		names, where = splitList(said), "annotation "+annotationTemplates
	}
	var expanded []string
	for _, name := range names {
		if of, ok := s.aliases[name]; ok {
			expanded = append(expanded, of...)
			continue
		}
		expanded = append(expanded, name)
	}
	var all []*template.Template
	for i, name := range expanded {
		if slices.Contains(expanded[:i], name) {
			continue
		}
		t, ok := s.templates[name]
		if !ok {
			return nil, fmt.Errorf("%s: there is no template %q: there are %s", where, name, strings.Join(slices.Sorted(maps.Keys(s.templates)), ", "))
		}
		all = append(all, t)
	}
	return all, nil
}

// splitList reads a comma list; entries that are empty do not count.
func splitList(text string) []string {
	var all []string
	for part := range strings.SplitSeq(text, ",") {
		if part = strings.TrimSpace(part); part != "" {
			all = append(all, part)
		}
	}
	return all
}
