package config

import (
	"encoding/json"
	"fmt"

	"go.yaml.in/yaml/v3"
	syaml "sigs.k8s.io/yaml"
)

// A Document is one object of a text as an API server takes it, of any kind.
type Document struct {
	APIVersion string
	Object     Key // with the namespace as written, which may be none
	Source     Source
	JSON       []byte
	node       *yaml.Node
}

// Line is the line on which the field at a path such as `spec.http[0].match` is
// written, or that of the innermost part that is.
func (d Document) Line(field string) int { return lineOf(d.node, field) }

// Documents reads the objects of a YAML or JSON text, in order of writing, without
// asking what their kinds mean. Lists give their items. What is no object is named
// by the Problems.
func Documents(name string, text []byte) (docs []Document, problems []Problem) {
	if len(text) > maxText {
		return nil, []Problem{{Source: Source{File: name, Line: 1}, Message: fmt.Sprintf("file is larger than %d MiB", maxText>>20)}}
	}
	for _, c := range split(text) {
		nodes, err := c.parse()
		if err == nil && len(nodes) == 1 {
			var found []Document
			if found, err = documents(name, c, nodes[0]); err == nil {
				docs = append(docs, found...)
				continue
			}
			problems = append(problems, Problem{Source: Source{name, nodes[0].Line}, Message: err.Error()})
			continue
		}
		if err != nil {
			problems = append(problems, syntaxProblem(name, c, err))
		}
	}
	return docs, problems
}

// documents converts as kubectl does, which reads booleans as YAML 1.1 has them.
func documents(name string, c chunk, n *yaml.Node) ([]Document, error) {
	text, err := syaml.YAMLToJSON(c.text)
	if err != nil {
		return nil, err
	}
	h := readHeading(n)
	if h.items == nil || h.items.Kind != yaml.SequenceNode {
		return one(name, text, n)
	}
	var list struct {
		Items []json.RawMessage `json:"items"`
	}
	if err := json.Unmarshal(text, &list); err != nil || len(list.Items) != len(h.items.Content) {
		return nil, fmt.Errorf("items: cannot be read")
	}
	var all []Document
	for i, item := range list.Items {
		docs, err := one(name, item, h.items.Content[i])
		if err != nil {
			return nil, fmt.Errorf("items[%d]: %w", i, err)
		}
		all = append(all, docs...)
	}
	return all, nil
}

func one(name string, text []byte, n *yaml.Node) ([]Document, error) {
	for n.Kind == yaml.AliasNode {
		n = n.Alias
	}
	h := readHeading(n)
	if n.Kind != yaml.MappingNode || h.apiVersion == "" || h.kind == "" {
		return nil, fmt.Errorf("a document must be a mapping with apiVersion and kind, got a %s", nodeName(n))
	}
	if h.name == "" {
		return nil, fmt.Errorf("%s: metadata.name: is missing", h.kind)
	}
	return []Document{{APIVersion: h.apiVersion, Object: Key{Kind: Kind(h.kind), Namespace: h.namespace, Name: h.name},
		Source: Source{name, n.Line}, JSON: text, node: n}}, nil
}
