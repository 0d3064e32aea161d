package istiostats

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// An expression is the value of a label in the expression language of mesh policies (CEL),
// of which this is the part that says something about one exchange: literals, attributes
// with their members and keys, ==, !=, &&, ||, !, +, the conditional, and the functions
// has, string, size, startsWith, endsWith and contains.
type expression struct {
	text string
	root node
}

// A value is a string, an int64, a bool or a map; nil when there is none.
type value any

// A node is a part of an expression.
type node interface{ eval(r *record) value }

// String is the value for a record as a label has it; "unknown" when there is none.
func (x *expression) String(r *record) string {
	if s, ok := text(x.root.eval(r)); ok {
		return s
	}
	return "unknown"
}

// Int is the value of an expression that counts; false when it is no number above 0.
func (x *expression) Int(r *record) (uint64, bool) {
	n, ok := x.root.eval(r).(int64)
	return uint64(max(n, 0)), ok && n > 0
}

func text(v value) (string, bool) {
	switch v := v.(type) {
	case string:
		return v, true
	case int64:
		return strconv.FormatInt(v, 10), true
	case bool:
		return strconv.FormatBool(v), true
	}
	return "", false
}

type literal struct{ v value }

func (l literal) eval(*record) value { return l.v }

// An attribute is a path: request.headers['x'] is request, headers, x.
type attribute struct{ path []string }

func (a attribute) eval(r *record) value { return r.attribute(a.path) }

type operation struct {
	op   string
	args []node
}

func (o operation) eval(r *record) value {
	switch o.op {
	case "&&":
		a, _ := o.args[0].eval(r).(bool)
		if !a {
			return false
		}
		b, _ := o.args[1].eval(r).(bool)
		return b
	case "||":
		if a, _ := o.args[0].eval(r).(bool); a {
			return true
		}
		b, _ := o.args[1].eval(r).(bool)
		return b
	case "?":
		if a, _ := o.args[0].eval(r).(bool); a {
			return o.args[1].eval(r)
		}
		return o.args[2].eval(r)
	case "!":
		a, ok := o.args[0].eval(r).(bool)
		if !ok {
			return nil
		}
		return !a
	case "has":
		return o.args[0].eval(r) != nil
	}
	return o.strict(r)
}

// strict are the operations without a value where an operand has none.
func (o operation) strict(r *record) value {
	v := make([]value, len(o.args))
	for i, a := range o.args {
		if v[i] = a.eval(r); v[i] == nil {
			return nil
		}
	}
	switch o.op {
	case "==":
		return same(v[0], v[1])
	case "!=":
		return !same(v[0], v[1])
	case "string":
		if s, ok := text(v[0]); ok {
			return s
		}
		return nil
	case "size":
		if s, ok := v[0].(string); ok {
			return int64(len(s))
		}
		return nil
	case "+":
		if a, ok := v[0].(int64); ok {
			if b, ok := v[1].(int64); ok {
				return a + b
			}
			return nil
		}
	}
	a, ok := v[0].(string)
	b, also := v[1].(string)
	if !ok || !also {
		return nil
	}
	return map[string]func(a, b string) value{
		"+":          func(a, b string) value { return a + b },
		"startsWith": func(a, b string) value { return strings.HasPrefix(a, b) },
		"endsWith":   func(a, b string) value { return strings.HasSuffix(a, b) },
		"contains":   func(a, b string) value { return strings.Contains(a, b) },
	}[o.op](a, b)
}

func same(a, b value) bool {
	x, ok := text(a)
	y, also := text(b)
	_, n := a.(int64)
	_, m := b.(int64)
	return ok && also && n == m && x == y
}

// A parser reads an expression by recursive descent.
type parser struct {
	rest  string
	depth int
}

// maxText bounds an expression, maxDepth its parentheses.
const (
	maxText  = 4096
	maxDepth = 50
)

var errDepth = errors.New("nested too deeply")

// parse compiles an expression. Its error names what is not understood.
func parse(s string) (*expression, error) {
	if len(s) > maxText {
		return nil, fmt.Errorf("expression: longer than %d bytes", maxText)
	}
	p := &parser{rest: s}
	n, err := p.conditional()
	if err == nil && strings.TrimSpace(p.rest) != "" {
		err = fmt.Errorf("not understood: %q", strings.TrimSpace(p.rest))
	}
	if err != nil {
		return nil, fmt.Errorf("expression %q: %w", s, err)
	}
	return &expression{text: s, root: n}, nil
}

// take consumes a token if it comes next.
func (p *parser) take(token string) bool {
	p.rest = strings.TrimLeft(p.rest, " \t\r\n")
	rest, ok := strings.CutPrefix(p.rest, token)
	if ok {
		p.rest = rest
	}
	return ok
}

func (p *parser) conditional() (node, error) {
	if p.depth++; p.depth > maxDepth {
		return nil, errDepth
	}
	defer func() { p.depth-- }()
	c, err := p.binary(0)
	if err != nil || !p.take("?") {
		return c, err
	}
	a, err := p.conditional()
	if err != nil {
		return nil, err
	}
	if !p.take(":") {
		return nil, errors.New("a conditional has no ':'")
	}
	b, err := p.conditional()
	return operation{"?", []node{c, a, b}}, err
}

// levels are the binary operators, those that bind least first.
var levels = [...][]string{{"||"}, {"&&"}, {"==", "!="}, {"+"}}

func (p *parser) binary(level int) (node, error) {
	if level == len(levels) {
		return p.unary()
	}
	a, err := p.binary(level + 1)
	for err == nil {
		op := ""
		for _, o := range levels[level] {
			if p.take(o) {
				op = o
				break
			}
		}
		if op == "" {
			return a, nil
		}
		var b node
		b, err = p.binary(level + 1)
		a = operation{op, []node{a, b}}
	}
	return nil, err
}

func (p *parser) unary() (node, error) {
	if p.depth++; p.depth > maxDepth {
		return nil, errDepth
	}
	defer func() { p.depth-- }()
	if p.take("!") {
		a, err := p.unary()
		return operation{"!", []node{a}}, err
	}
	if p.take("(") {
		n, err := p.conditional()
		if err == nil && !p.take(")") {
			err = errors.New("a parenthesis is not closed")
		}
		return n, err
	}
	n, err := p.primary()
	if err != nil {
		return nil, err
	}
	return p.members(n)
}

// primary is a literal, a function's call or the first word of an attribute.
func (p *parser) primary() (node, error) {
	p.take("")
	switch {
	case p.rest == "":
		return nil, errors.New("ends too early")
	case p.rest[0] == '\'' || p.rest[0] == '"':
		s, err := p.quoted()
		return literal{s}, err
	case p.rest[0] == '-' || p.rest[0] >= '0' && p.rest[0] <= '9':
		return p.number()
	}
	name := p.word()
	switch name {
	case "":
		return nil, fmt.Errorf("not understood: %q", p.rest)
	case "true", "false":
		return literal{name == "true"}, nil
	case "has", "string", "size":
		if !p.take("(") {
			return nil, fmt.Errorf("%s: wants one operand in parentheses", name)
		}
		a, err := p.conditional()
		if err == nil && !p.take(")") {
			err = fmt.Errorf("%s: wants one operand in parentheses", name)
		}
		return operation{name, []node{a}}, err
	}
	if !roots[name] {
		return nil, fmt.Errorf("%s: no such attribute", name)
	}
	return attribute{[]string{name}}, nil
}

// members are ".name", "['key']" and ".function(operand)".
func (p *parser) members(n node) (node, error) {
	for {
		a, isAttribute := n.(attribute)
		switch {
		case p.take("["):
			p.take("")
			key, err := p.quoted()
			if err == nil && (!p.take("]") || !isAttribute) {
				err = errors.New("a key is for attributes, in brackets")
			}
			if err != nil {
				return nil, err
			}
			n = attribute{append(slices.Clip(a.path), key)}
		case p.take("."):
			name := p.word()
			if p.take("(") {
				if name != "startsWith" && name != "endsWith" && name != "contains" {
					return nil, fmt.Errorf("%s: no such function", name)
				}
				b, err := p.conditional()
				if err == nil && !p.take(")") {
					err = fmt.Errorf("%s: wants one operand", name)
				}
				if err != nil {
					return nil, err
				}
				n = operation{name, []node{n, b}}
				continue
			}
			if name == "" || !isAttribute {
				return nil, errors.New("a member's name is missing")
			}
			n = attribute{append(slices.Clip(a.path), name)}
		default:
			return n, nil
		}
	}
}

func (p *parser) word() string {
	p.take("")
	i := 0
	for i < len(p.rest) {
		c := p.rest[i]
		if c != '_' && (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (i == 0 || c < '0' || c > '9') {
			break
		}
		i++
	}
	w := p.rest[:i]
	p.rest = p.rest[i:]
	return w
}

func (p *parser) number() (node, error) {
	i := 1
	for i < len(p.rest) && p.rest[i] >= '0' && p.rest[i] <= '9' {
		i++
	}
	n, err := strconv.ParseInt(p.rest[:i], 10, 64)
	p.rest = p.rest[i:]
	return literal{n}, err
}

// quoted is a string in either quotes, with backslashes before what would end it.
func (p *parser) quoted() (string, error) {
	if p.rest == "" || p.rest[0] != '\'' && p.rest[0] != '"' {
		return "", errors.New("a text in quotes is missing")
	}
	quote := p.rest[0]
	var b strings.Builder
	for i := 1; i < len(p.rest); i++ {
		switch c := p.rest[i]; {
		case c == quote:
			p.rest = p.rest[i+1:]
			return b.String(), nil
		case c == '\\' && i+1 < len(p.rest):
			i++
			b.WriteByte(p.rest[i])
		default:
			b.WriteByte(c)
		}
	}
	return "", errors.New("a text's quotes are not closed")
}
