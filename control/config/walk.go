package config

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// Bounds of one document. They are far above what people write and keep a small
// file with nested aliases from growing without end.
const (
	maxDepth    = 100
	maxNodes    = 1 << 20 // aliases count as often as they are used
	maxProblems = 32      // reported per document; further ones are dropped
	maxWarnings = 16      // of these, so that they do not crowd out errors
	maxBlank    = 1024    // places with an empty value that are remembered
)

// A walker turns a YAML node into JSON under the eyes of a shape: names,
// spellings and types are checked where the lines are still known.
type walker struct {
	json     []byte
	path     []string // ["spec", ".http", "[0]"]
	nodes    int
	problems []Problem // Source.Line and Field are set, the rest is the caller's
	failed   bool      // some problem is an error
	warnings int

	blank map[string]bool // where "" or {} is written, which no decoded object shows

	unknown Severity // of a field that the schema does not have
	lenient bool     // nothing is said of such fields
	strict  bool     // a key that is written twice is an error, as for kubectl
	secret  bool     // keep values out of messages
}

func (w *walker) report(n *yaml.Node, s Severity, hint, format string, args ...any) {
	if s == Error {
		w.failed = true
	} else if w.warnings++; w.warnings > maxWarnings {
		return
	}
	if len(w.problems) < maxProblems {
		w.problems = append(w.problems, Problem{
			Source: Source{Line: n.Line}, Field: strings.Join(w.path, ""),
			Severity: s, Hint: hint, Message: fmt.Sprintf(format, args...),
		})
	}
}

func (w *walker) errorf(n *yaml.Node, format string, args ...any) {
	w.report(n, Error, "", format, args...)
}

// value appends the JSON of n. It reports false when there is no value: null, or
// an error that was reported.
func (w *walker) value(n *yaml.Node, s shape) bool {
	for n.Kind == yaml.AliasNode {
		n = n.Alias
	}
	if w.nodes++; w.nodes > maxNodes {
		if w.nodes == maxNodes+1 {
			w.errorf(n, "document is too large: more than %d values", maxNodes)
		}
		return false
	}
	if len(w.path) > maxDepth {
		w.errorf(n, "nested more than %d levels deep", maxDepth)
		return false
	}
	if n.Kind == yaml.ScalarNode && n.ShortTag() == "!!null" && s.form != anything {
		return false
	}
	switch s.form {
	case anything:
		return w.anything(n)
	case record:
		return w.record(n, s)
	case dict:
		return w.dict(n, s)
	case list:
		return w.list(n, s)
	}
	if n.Kind != yaml.ScalarNode {
		w.errorf(n, "must be %s, got a %s", s, nodeName(n))
		return false
	}
	return w.scalar(n, s)
}

func (w *walker) record(n *yaml.Node, s shape) bool {
	if n.Kind != yaml.MappingNode {
		w.errorf(n, "must be a mapping, got %s", w.describe(n))
		return false
	}
	entries := w.entries(n, func(key string) string {
		if _, name, _, ok := s.fields.lookup(key); ok {
			return name // sni_hosts and sniHosts are one field
		}
		return key
	})
	w.json = append(w.json, '{')
	groups := map[string]string{}
	for _, e := range entries {
		field, name, oneof, ok := s.fields.lookup(e.key)
		w.path = append(w.path, dotted(len(w.path), e.key))
		if !ok {
			w.unknownField(e, s)
		} else if other := groups[oneof]; oneof != "" && other != "" && !isNull(e.value) {
			w.errorf(e.name, "cannot be set together with %s", other)
		} else if w.member(name, e.value, field) && oneof != "" {
			groups[oneof] = e.key
		}
		w.path = w.path[:len(w.path)-1]
	}
	w.close('}')
	return true
}

func (w *walker) unknownField(e entry, s shape) {
	if w.lenient {
		return
	}
	hint := didYouMean(e.key, s.fields.names())
	if names := s.fields.names(); hint == "" && len(names) > 0 && len(names) <= 8 {
		hint = "fields here: " + strings.Join(names, ", ")
	}
	where := ""
	if m, ok := s.fields.(messageFields); ok && w.strict {
		where = " in " + string(m.md.FullName())
	}
	w.report(e.name, w.unknown, hint, "unknown field %q%s", shorten(e.key), where)
}

// member appends `"name":value,`, or nothing when there is no value.
func (w *walker) member(name string, n *yaml.Node, s shape) bool {
	mark := len(w.json)
	w.string(name)
	w.json = append(w.json, ':')
	if !w.value(n, s) {
		w.json = w.json[:mark]
		return false
	}
	w.json = append(w.json, ',')
	return true
}

func (w *walker) dict(n *yaml.Node, s shape) bool {
	if n.Kind != yaml.MappingNode {
		w.errorf(n, "must be a mapping, got %s", w.describe(n))
		return false
	}
	if len(n.Content) == 0 {
		w.isBlank()
	}
	elem := s.elem()
	w.json = append(w.json, '{')
	for _, e := range w.entries(n, nil) {
		w.path = append(w.path, "["+strconv.Quote(shorten(e.key))+"]")
		switch {
		case !validKey(e.key, s.keys):
			w.errorf(e.name, "key must be %s", shape{form: s.keys})
		case isNull(e.value) && (elem.form == record || elem.form == list):
			w.report(e.value, Error, "write {} for an empty one", "must not be null")
		case isNull(e.value) && elem.form == text:
			// kubectl keeps such labels, annotations and data keys as ""
			w.string(e.key)
			w.json = append(w.json, `:"",`...)
		default:
			w.member(e.key, e.value, elem)
		}
		w.path = w.path[:len(w.path)-1]
	}
	w.close('}')
	return true
}

func (w *walker) list(n *yaml.Node, s shape) bool {
	if n.Kind != yaml.SequenceNode {
		w.report(n, Error, `begin each item with "- "`, "must be a list, got %s", w.describe(n))
		return false
	}
	elem := s.elem()
	w.json = append(w.json, '[')
	for i, item := range n.Content {
		w.path = append(w.path, "["+strconv.Itoa(i)+"]")
		if isNull(item) && elem.form != anything {
			w.errorf(item, "must not be null")
		} else if w.value(item, elem) {
			w.json = append(w.json, ',')
		}
		w.path = w.path[:len(w.path)-1]
	}
	w.close(']')
	return true
}

// close ends an object or array, dropping the comma after the last member.
func (w *walker) close(c byte) {
	if i := len(w.json) - 1; w.json[i] == ',' {
		w.json = w.json[:i]
	}
	w.json = append(w.json, c)
}

func (w *walker) anything(n *yaml.Node) bool {
	switch n.Kind {
	case yaml.MappingNode:
		return w.dict(n, shape{form: dict, keys: text, elem: func() shape { return shape{} }})
	case yaml.SequenceNode:
		return w.list(n, shape{form: list, elem: func() shape { return shape{} }})
	}
	switch v := readScalar(n); {
	case v.tag == "!!null":
		w.json = append(w.json, "null"...)
	case v.tag == "!!bool":
		w.json = strconv.AppendBool(w.json, v.truth)
	case v.tag == "!!str":
		w.string(v.text)
	case v.whole != "":
		w.json = append(w.json, v.whole...)
	case v.finite():
		w.json = strconv.AppendFloat(w.json, v.float, 'g', -1, 64)
	default:
		w.errorf(n, "must be a finite number")
		return false
	}
	return true
}

func (w *walker) scalar(n *yaml.Node, s shape) bool {
	v := readScalar(n)
	switch {
	case s.form == boolean && v.tag == "!!bool":
		w.json = strconv.AppendBool(w.json, v.truth)
		return true
	case s.form == integer, s.form == intOrText && v.tag == "!!int":
		return w.integer(n, v, s)
	case s.form == number:
		return w.number(n, v)
	case s.form == enumeration:
		return w.enumeration(n, v, s.enum)
	case s.form == quantity && v.tag != "!!bool":
		w.string(v.text)
		return true
	case v.tag != "!!str":
	case s.form == text, s.form == intOrText:
		if v.text == "" {
			w.isBlank()
		}
		w.string(v.text)
		return true
	case s.form == duration:
		return w.duration(n, v)
	case s.form == bytesText:
		return w.bytes(n, v)
	}
	hint := ""
	if s.form == text && !w.secret {
		hint = "quote it: " + strconv.Quote(shorten(v.text))
	} else if s.form == duration && v.whole != "" {
		hint = fmt.Sprintf("give a unit: %ss", v.whole)
	}
	w.report(n, Error, hint, "must be %s, got %s", s, w.describe(n))
	return false
}

// isBlank remembers that an empty value is written here.
func (w *walker) isBlank() {
	if w.blank == nil {
		w.blank = map[string]bool{}
	}
	if len(w.blank) < maxBlank {
		w.blank[fieldID(strings.Join(w.path, ""))] = true
	}
}

// fieldID is the same for all spellings of a path.
func fieldID(path string) string { return plainName(strings.TrimPrefix(path, "spec.")) }

func (w *walker) integer(n *yaml.Node, v scalar, s shape) bool {
	digits := v.whole
	if v.tag == "!!str" && s.quoted {
		digits = v.text
	}
	if v.tag == "!!bool" || digits == "" {
		w.errorf(n, "must be a whole number, got %s", w.describe(n))
		return false
	}
	bits := max(s.bits, 32) // intOrText has 32
	if s.signed || s.form == intOrText {
		if i, err := strconv.ParseInt(digits, 10, bits); err == nil {
			w.json = strconv.AppendInt(w.json, i, 10)
			return true
		}
	} else if u, err := strconv.ParseUint(digits, 10, bits); err == nil {
		w.json = strconv.AppendUint(w.json, u, 10)
		return true
	}
	w.errorf(n, "must be %s, got %s", s, w.describe(n))
	return false
}

func (w *walker) number(n *yaml.Node, v scalar) bool {
	f := v.float
	if v.tag == "!!str" {
		parsed, err := strconv.ParseFloat(v.text, 64)
		if err != nil {
			w.errorf(n, "must be a number, got %s", w.describe(n))
			return false
		}
		v.tag, v.float, f = "!!float", parsed, parsed
	}
	if v.tag != "!!int" && v.tag != "!!float" || !v.finite() {
		w.errorf(n, "must be a number, got %s", w.describe(n))
		return false
	}
	w.json = strconv.AppendFloat(w.json, f, 'g', -1, 64)
	return true
}

func (w *walker) enumeration(n *yaml.Node, v scalar, enum protoreflect.EnumDescriptor) bool {
	values := enum.Values()
	if v.tag == "!!int" {
		if i, err := strconv.ParseInt(v.whole, 10, 32); err == nil && values.ByNumber(protoreflect.EnumNumber(i)) != nil {
			w.json = append(w.json, v.whole...)
			return true
		}
	}
	if values.ByName(protoreflect.Name(v.text)) != nil {
		w.string(v.text)
		return true
	}
	var names []string
	for i := range values.Len() {
		names = append(names, string(values.Get(i).Name()))
	}
	w.report(n, Error, didYouMean(v.text, names), "must be one of %s, got %s", strings.Join(names, ", "), w.describe(n))
	return false
}

// duration accepts what Istio does, Go's form ("1h30m", "0.5s"), and writes protobuf's.
func (w *walker) duration(n *yaml.Node, v scalar) bool {
	d, err := time.ParseDuration(v.text)
	if err != nil {
		hint := ""
		if _, numeric := strconv.ParseFloat(v.text, 64); numeric == nil {
			hint = fmt.Sprintf("give a unit: %ss", v.text)
		}
		w.report(n, Error, hint, "must be a duration such as 0.5s, 3m or 1h, got %s", w.describe(n))
		return false
	}
	sign, secs, nanos := "", d/time.Second, d%time.Second
	if d < 0 {
		sign, secs, nanos = "-", -secs, -nanos
	}
	w.string(fmt.Sprintf("%s%d.%09ds", sign, secs, nanos))
	return true
}

func (w *walker) bytes(n *yaml.Node, v scalar) bool {
	plain := strings.Map(func(r rune) rune {
		if r == '\n' || r == '\r' || r == ' ' {
			return -1 // block scalars wrap long values
		}
		return r
	}, v.text)
	raw, err := base64.StdEncoding.DecodeString(plain)
	if err != nil {
		w.report(n, Error, "plain text of a Secret belongs in stringData", "must be base64: %v", err)
		return false
	}
	w.string(base64.StdEncoding.EncodeToString(raw))
	return true
}

func (w *walker) string(v string) {
	quoted, err := json.Marshal(v)
	if err != nil { // no string makes Marshal fail
		quoted = []byte(`""`)
	}
	w.json = append(w.json, quoted...)
}

// An entry is one key with its value after merge keys are resolved.
type entry struct {
	key         string
	name, value *yaml.Node
}

// entries are the members of a mapping in order of writing. Where a key is
// written twice the last one wins, with a warning; same says under which name a
// key is known. Keys of merged mappings (<<) yield to written ones.
func (w *walker) entries(n *yaml.Node, same func(string) string) []entry {
	var own, merged []entry
	for i := 0; i+1 < len(n.Content); i += 2 {
		name, value := n.Content[i], n.Content[i+1]
		for name.Kind == yaml.AliasNode {
			name = name.Alias
		}
		switch {
		case name.Kind != yaml.ScalarNode:
			w.errorf(name, "a key must be a plain value, got a %s", nodeName(name))
		case name.ShortTag() == "!!merge":
			merged = append(merged, w.merge(value, 0)...)
		default:
			own = append(own, w.entry(name, value))
		}
	}
	at := map[string]int{}
	var all []entry
	for i, e := range slices.Concat(own, merged) {
		id := e.key
		if same != nil {
			id = same(e.key)
		}
		j, seen := at[id]
		switch {
		case !seen:
			at[id] = len(all)
			all = append(all, e)
		case i < len(own) && w.strict:
			w.errorf(e.name, "duplicate key %q (first on line %d)", shorten(e.key), all[j].name.Line)
		case i < len(own):
			w.report(e.name, Warning, "", "duplicate key %q (first on line %d): the last one wins", shorten(e.key), all[j].name.Line)
			all[j] = e
		}
	}
	return all
}

func (w *walker) entry(name, value *yaml.Node) entry {
	v := readScalar(name)
	if v.tag == "!!bool" && v.key() != v.text {
		w.report(name, Warning, "quote it: "+strconv.Quote(v.text),
			"key %s is read as the boolean %s, as kubectl reads it", v.text, v.key())
	}
	return entry{v.key(), name, value}
}

// merge resolves the value of <<: a mapping, an alias of one, or a list of them.
func (w *walker) merge(n *yaml.Node, depth int) []entry {
	for n.Kind == yaml.AliasNode {
		n = n.Alias
	}
	var all []entry
	if w.nodes += len(n.Content); depth > maxDepth || w.nodes > maxNodes {
		w.errorf(n, "merged mappings are nested too deep or are too large")
		return nil
	}
	switch n.Kind {
	case yaml.SequenceNode:
		for _, item := range n.Content {
			all = append(all, w.merge(item, depth+1)...)
		}
	case yaml.MappingNode:
		for i := 0; i+1 < len(n.Content); i += 2 {
			if name := n.Content[i]; name.ShortTag() == "!!merge" {
				all = append(all, w.merge(n.Content[i+1], depth+1)...)
			} else if name.Kind == yaml.ScalarNode {
				all = append(all, w.entry(name, n.Content[i+1]))
			}
		}
	default:
		w.errorf(n, "a merge key needs a mapping, got %s", w.describe(n))
	}
	return all
}

func (w *walker) describe(n *yaml.Node) string {
	if n.Kind != yaml.ScalarNode {
		return "a " + nodeName(n)
	}
	v := readScalar(n)
	if w.secret {
		return v.category()
	}
	return v.describe()
}

func dotted(depth int, name string) string {
	if depth == 0 {
		return name
	}
	return "." + name
}

func isNull(n *yaml.Node) bool {
	for n.Kind == yaml.AliasNode {
		n = n.Alias
	}
	return n.Kind == yaml.ScalarNode && n.ShortTag() == "!!null"
}

func validKey(key string, f form) bool {
	switch f {
	case integer:
		_, err := strconv.ParseInt(key, 10, 64)
		return err == nil
	case boolean:
		return key == "true" || key == "false"
	}
	return true
}

func nodeName(n *yaml.Node) string {
	switch n.Kind {
	case yaml.MappingNode:
		return "mapping"
	case yaml.SequenceNode:
		return "list"
	}
	return "value"
}

// String names the form in messages: "must be a string".
func (s shape) String() string {
	switch s.form {
	case text:
		return "a string"
	case bytesText:
		return "a base64 string"
	case boolean:
		return "true or false"
	case integer:
		if s.bits > 0 && !s.signed {
			return fmt.Sprintf("a whole number between 0 and %d", ^uint64(0)>>(64-s.bits))
		}
		if s.bits > 0 {
			return fmt.Sprintf("a whole number of %d bits", s.bits)
		}
		return "a whole number"
	case number:
		return "a number"
	case duration:
		return "a duration such as 0.5s, 3m or 1h"
	case intOrText:
		return "a number or a string"
	case quantity:
		return "a quantity such as 100Mi"
	case record, dict:
		return "a mapping"
	case list:
		return "a list"
	}
	return "a value"
}
