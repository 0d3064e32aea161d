package config

import (
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// lineOf finds the line of the field at a path such as
// `spec.http[0].headers.request.set["x-a"]`. Where the path leads to something
// that is not written, the line of the innermost part that is.
func lineOf(n *yaml.Node, path string) int {
	line := n.Line
	for _, step := range steps(path) {
		for n.Kind == yaml.AliasNode {
			n = n.Alias
		}
		next, at := descend(n, step)
		if next == nil {
			return line
		}
		n, line = next, at
	}
	return line
}

// steps cuts a path into names, indices and keys.
func steps(path string) []string {
	var all []string
	for path != "" {
		switch path[0] {
		case '.':
			path = path[1:]
		case '[':
			end := strings.IndexByte(path, ']')
			if q, err := strconv.QuotedPrefix(path[1:]); err == nil {
				key, _ := strconv.Unquote(q)
				all, path = append(all, key), path[1+len(q)+1:]
				continue
			}
			if end < 0 {
				return all
			}
			all, path = append(all, path[1:end]), path[end+1:]
		default:
			end := strings.IndexAny(path, ".[")
			if end < 0 {
				end = len(path)
			}
			all, path = append(all, path[:end]), path[end:]
		}
	}
	return all
}

// descend follows one step and gives the line on which it is written: that of
// the key, or of the list item.
func descend(n *yaml.Node, step string) (*yaml.Node, int) {
	switch n.Kind {
	case yaml.MappingNode:
		for i := len(n.Content) - 2; i >= 0; i -= 2 {
			if n.Content[i].Value == step || plainName(n.Content[i].Value) == plainName(step) {
				return n.Content[i+1], n.Content[i].Line
			}
		}
	case yaml.SequenceNode:
		if i, err := strconv.Atoi(step); err == nil && i >= 0 && i < len(n.Content) {
			return n.Content[i], n.Content[i].Line
		}
	}
	return nil, 0
}
