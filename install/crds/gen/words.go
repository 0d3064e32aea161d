package main

import (
	_ "embed"
	"fmt"

	"google.golang.org/protobuf/reflect/protoreflect"
	"sigs.k8s.io/yaml"
)

//go:embed words.yaml
var wordsYAML []byte

// words are the descriptions of a kind: "" of the kind itself, the others of the
// fields of its spec. Deeper fields have none: every API server keeps all of it in
// memory, once per version.
type words map[string]string

func readWords() (map[string]words, error) {
	var all map[string]words
	if err := yaml.UnmarshalStrict(wordsYAML, &all); err != nil {
		return nil, fmt.Errorf("words.yaml: %w", err)
	}
	return all, nil
}

// describe writes the words into the schema of a spec. Each field must have some.
func (w words) describe(spec schema, md protoreflect.MessageDescriptor) error {
	if len(w) != md.Fields().Len()+1 {
		return fmt.Errorf("words.yaml describes %d fields, the kind has %d", len(w)-1, md.Fields().Len())
	}
	for i := range md.Fields().Len() {
		name := md.Fields().Get(i).JSONName()
		if w[name] == "" {
			return fmt.Errorf("words.yaml has none for field %s", name)
		}
		spec["properties"].(schema)[name].(schema)["description"] = w[name]
	}
	return nil
}
