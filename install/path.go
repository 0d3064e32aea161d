package install

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// A step is one element of a path: a key of a mapping, an index of a list, or the element
// of a list that has a value.
//
//	a.b  a\.b  [0]  [-1]  [name:x]  [:x]  [x]
type step struct {
	key   string // of a mapping; with match of the elements to look at, "" for the elements themselves
	index int
	kind  stepKind
	value string // that an element is found by
}

type stepKind int

const (
	byKey stepKind = iota
	byIndex
	byValue
)

// maxSteps bounds a path.
const maxSteps = 64

// parsePath reads a path: keys with dots between, lists in brackets, with or without a dot
// before them; a backslash takes the meaning from the character behind it.
func parsePath(path string) ([]step, error) {
	var steps []step
	for rest := path; rest != ""; {
		if len(steps) == maxSteps {
			return nil, fmt.Errorf("has more than %d parts", maxSteps)
		}
		if inner, after, ok := bracket(rest); ok {
			s, err := listStep(inner)
			if err != nil {
				return nil, err
			}
			steps = append(steps, s)
			if rest = after; rest == "" || rest[0] == '[' {
				continue
			}
			if rest[0] != '.' {
				return nil, errors.New("after ] there must be a dot or [")
			}
			if rest = rest[1:]; rest == "" {
				return nil, errors.New("ends with a dot")
			}
			continue
		}
		key, after := upTo(rest, ".[")
		if key == "" {
			return nil, errors.New("has an empty part")
		}
		steps = append(steps, step{key: key})
		switch rest = after; {
		case rest == ".":
			return nil, errors.New("ends with a dot")
		case rest != "" && rest[0] == '.':
			rest = rest[1:]
		}
	}
	if len(steps) == 0 {
		return nil, errors.New("is empty")
	}
	return steps, nil
}

// upTo cuts a text before the first of some characters, those with a backslash before them
// aside, which lose it.
func upTo(text, stops string) (head, rest string) {
	var b strings.Builder
	for i := 0; i < len(text); i++ {
		if text[i] == '\\' && i+1 < len(text) {
			i++
		} else if strings.IndexByte(stops, text[i]) >= 0 {
			return b.String(), text[i:]
		}
		b.WriteByte(text[i])
	}
	return b.String(), ""
}

// bracket cuts off "[inner]".
func bracket(text string) (inner, rest string, ok bool) {
	if text[0] != '[' {
		return "", "", false
	}
	escaped := false
	for i := 1; i < len(text); i++ {
		switch {
		case escaped:
			escaped = false
		case text[i] == '\\':
			escaped = true
		case text[i] == ']':
			return text[1:i], text[i+1:], true
		}
	}
	return "", "", false
}

func listStep(inner string) (step, error) {
	if inner == "" {
		return step{}, errors.New("has an empty []")
	}
	if n, err := strconv.Atoi(inner); err == nil {
		if n < -1 || n > 1000 {
			return step{}, fmt.Errorf("[%d]: must be -1 to 1000", n)
		}
		return step{kind: byIndex, index: n}, nil
	}
	key, value := upTo(inner, ":")
	if value == "" { // "[x]", an element by itself
		return step{kind: byValue, value: key}, nil
	}
	text, _ := upTo(value[1:], "")
	return step{kind: byValue, key: key, value: text}, nil
}

// found is the index of the element that a step means, -1 where there is none.
func (s step) found(list []any) int {
	if s.kind == byIndex {
		if s.index == -1 {
			return len(list) - 1
		}
		if s.index < len(list) {
			return s.index
		}
		return -1
	}
	for i, element := range list {
		want := s.value
		if m, ok := element.(map[string]any); ok {
			element = m[s.key]
		} else if s.key != "" { // the colon is part of the text
			want = s.key + ":" + s.value
		}
		if element != nil && fmt.Sprint(element) == want {
			return i
		}
	}
	return -1
}

// String is the step as it is written behind others.
func (s step) String() string {
	switch s.kind {
	case byIndex:
		return fmt.Sprintf("[%d]", s.index)
	case byValue:
		return fmt.Sprintf("[%s:%s]", s.key, s.value)
	}
	return "." + strings.NewReplacer(`\`, `\\`, ".", `\.`, "[", `\[`).Replace(s.key)
}

func pathText(steps []step) string {
	var b strings.Builder
	for _, s := range steps {
		b.WriteString(s.String())
	}
	return strings.TrimPrefix(b.String(), ".")
}

// put sets, or with a nil value removes, what a path names within a tree of maps and lists,
// and returns the tree. Maps on the way are made; an index one behind the end of a list, and
// [-1], append to it.
func put(tree any, steps []step, value any) (any, error) {
	if len(steps) == 0 {
		return value, nil
	}
	s := steps[0]
	if s.kind == byKey {
		m, ok := tree.(map[string]any)
		if !ok && tree != nil {
			return nil, fmt.Errorf("%s: there is no mapping to have it", s.key)
		}
		if m == nil {
			if value == nil {
				return nil, nil
			}
			m = map[string]any{}
		}
		if len(steps) == 1 && value == nil {
			delete(m, s.key)
			return m, nil
		}
		below, err := put(m[s.key], steps[1:], value)
		if err != nil {
			return nil, err
		}
		m[s.key] = below
		return m, nil
	}
	return putInList(tree, s, steps[1:], value)
}

func putInList(tree any, s step, rest []step, value any) (any, error) {
	list, ok := tree.([]any)
	if !ok && tree != nil {
		return nil, fmt.Errorf("%s: there is no list to have it", s)
	}
	i := s.found(list)
	if s.kind == byIndex && (s.index == len(list) || s.index == -1 && len(rest) == 0 && value != nil) {
		i = len(list)
		list = append(list, nil)
	}
	if i < 0 {
		return nil, fmt.Errorf("%s: the list of %d has no such element", s, len(list))
	}
	if len(rest) == 0 && value == nil {
		return append(list[:i:i], list[i+1:]...), nil
	}
	below, err := put(list[i], rest, value)
	if err != nil {
		return nil, err
	}
	list[i] = below
	return list, nil
}
