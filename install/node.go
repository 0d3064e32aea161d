package install

import "go.yaml.in/yaml/v3"

// child is the value of a key, nil where there is none.
func child(n *yaml.Node, key string) *yaml.Node {
	if n == nil || n.Kind != yaml.MappingNode {
		return nil
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		if n.Content[i].Value == key {
			return n.Content[i+1]
		}
	}
	return nil
}

// cut takes what a path of keys names out of a node; nil where there is nothing.
func cut(n *yaml.Node, path []step) *yaml.Node {
	for _, s := range path[:len(path)-1] {
		if n = child(n, s.key); n == nil {
			return nil
		}
	}
	if n.Kind != yaml.MappingNode {
		return nil
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		if value := n.Content[i+1]; n.Content[i].Value == path[len(path)-1].key {
			n.Content = append(n.Content[:i:i], n.Content[i+2:]...)
			return value
		}
	}
	return nil
}

// paste puts a value where a path leads, and makes what is missing on the way. What is
// there already stays as it is: who writes both the old and the new name means the new one.
// An element of a list is added with the value that it would be found by.
func paste(n *yaml.Node, path []step, value *yaml.Node) {
	for i, s := range path {
		last := i == len(path)-1
		var next *yaml.Node
		if s.kind == byKey {
			if next = child(n, s.key); next != nil && last {
				merge(next, value)
				return
			}
		}
		if next == nil {
			next = &yaml.Node{Kind: yaml.MappingNode, Tag: "!!map", Line: value.Line}
			if last {
				next = value
			} else if path[i+1].kind != byKey {
				next.Kind, next.Tag = yaml.SequenceNode, "!!seq"
			}
			switch s.kind {
			case byKey:
				n.Content = append(n.Content, word(s.key, value.Line), next)
			case byValue:
				if s.key != "" && next.Kind == yaml.MappingNode {
					next.Content = append(next.Content, word(s.key, value.Line), word(s.value, value.Line))
				}
				n.Content = append(n.Content, next)
			case byIndex:
				n.Content = append(n.Content, next)
			}
		}
		n = next
	}
}

// merge adds to a mapping what it does not have; all else stays.
func merge(n, more *yaml.Node) {
	if n.Kind != yaml.MappingNode || more.Kind != yaml.MappingNode {
		return
	}
	for i := 0; i+1 < len(more.Content); i += 2 {
		if old := child(n, more.Content[i].Value); old != nil {
			merge(old, more.Content[i+1])
		} else {
			n.Content = append(n.Content, more.Content[i], more.Content[i+1])
		}
	}
}

func word(value string, line int) *yaml.Node {
	return &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Value: value, Line: line}
}
