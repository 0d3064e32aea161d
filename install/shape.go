package install

import (
	"fmt"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// A shape is what may be written somewhere: a tree of examples, as shape.yaml and
// values.yaml have them.
type shape = any

// shapeOfSpec is that of the whole spec.
func shapeOfSpec() (shape, error) {
	spec, err := embedded("shape.yaml")
	if err != nil {
		return nil, err
	}
	spec["values"], err = defaultValues()
	return spec, err
}

func embedded(name string) (map[string]any, error) {
	content, err := files.ReadFile(name)
	if err != nil {
		return nil, err
	}
	tree := map[string]any{}
	if err := yaml.Unmarshal(content, &tree); err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return tree, nil
}

// A fault is something wrong at a line.
type fault struct {
	line int
	err  error
}

// check compares what is written with a shape. Scalars become what the shape has there, so
// that a tag 1.10 stays that text. An alias is followed.
func check(n *yaml.Node, want shape, path string) (faults []fault) {
	if n.Kind == yaml.AliasNode {
		return check(n.Alias, want, path)
	}
	if n.Tag == "!!null" || want == nil {
		return nil
	}
	say := func(format string, args ...any) []fault {
		return []fault{{n.Line, fmt.Errorf("%s: "+format, append([]any{path}, args...)...)}}
	}
	switch want := want.(type) {
	case map[string]any:
		if n.Kind != yaml.MappingNode {
			return say("must be a mapping")
		}
		return checkFields(n, want, path)
	case []any:
		if n.Kind != yaml.SequenceNode {
			return say("must be a list")
		}
		for i := range n.Content {
			if len(want) > 0 {
				faults = append(faults, check(n.Content[i], want[0], fmt.Sprintf("%s[%d]", path, i))...)
			}
		}
		return faults
	}
	if n.Kind != yaml.ScalarNode {
		return say("must be a single value")
	}
	switch want.(type) {
	case string:
		n.Tag = "!!str"
	case bool:
		if _, err := strconv.ParseBool(n.Value); err != nil {
			return say("must be true or false, not %q", n.Value)
		}
		n.Tag = "!!bool"
	default:
		if _, err := strconv.ParseFloat(n.Value, 64); err != nil {
			return say("must be a number, not %q", n.Value)
		}
		n.Tag = ""
		n.Style = 0
	}
	return nil
}

func checkFields(n *yaml.Node, want map[string]any, path string) (faults []fault) {
	if len(want) == 0 {
		return nil
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		key := n.Content[i].Value
		inner := strings.TrimPrefix(path+step{key: key}.String(), ".")
		if sub, ok := want[key]; ok {
			faults = append(faults, check(n.Content[i+1], sub, inner)...)
			continue
		}
		err := fmt.Errorf("%s: there is no such field", inner)
		if near := nearest(key, want); near != "" {
			err = fmt.Errorf("%w; %q is near", err, near)
		}
		faults = append(faults, fault{n.Content[i].Line, err})
	}
	return faults
}

// nearest is the key that is written most like another, within two changes.
func nearest(key string, among map[string]any) string {
	best, least := "", 3
	for k := range among {
		if d := distance(key, k); d < least || d == least && k < best {
			best, least = k, d
		}
	}
	return best
}

// distance counts the characters to change, add or remove to make one word the other.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := diagonal
			if a[i] != b[j] {
				cost++
			}
			diagonal = row[j+1]
			row[j+1] = min(cost, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}
