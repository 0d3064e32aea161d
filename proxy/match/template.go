package match

import (
	"errors"
	"fmt"
	"regexp"
	"strings"
)

// A Template is a compiled path template: segments of literal text, "*" for one segment,
// "**" for any number of them, last of all, and variables {name}, {name=*}, {name=**} or
// {name=a/*} that remember what stood in their place.
type Template struct {
	text string
	re   *regexp.Regexp
}

// Limits of one template.
const (
	maxTemplate      = 1 << 10
	maxVariables     = 5
	maxVariableName  = 16
	pathBytes        = `a-zA-Z0-9\-._~%!$&'()+,;:@=`
	oneSegment       = `[` + pathBytes + `]+`
	anySegments      = `[` + pathBytes + `/]*`
	templateSpecials = "{}*"
)

// NewTemplate compiles a path template.
func NewTemplate(text string) (*Template, error) {
	if len(text) > maxTemplate {
		return nil, fmt.Errorf("path template of %d bytes: at most %d", len(text), maxTemplate)
	}
	if !strings.HasPrefix(text, "/") {
		return nil, fmt.Errorf("path template %q: must begin with /", text)
	}
	p := templateParser{names: map[string]bool{}}
	if err := p.parse(text); err != nil {
		return nil, fmt.Errorf("path template %q: %w", text, err)
	}
	re, err := regexp.Compile(`\A` + p.out.String() + `\z`)
	if err != nil {
		return nil, fmt.Errorf("path template %q: %w", text, err)
	}
	return &Template{text, re}, nil
}

// Match reports whether a path, without its query, is one of the template's.
func (t *Template) Match(path []byte) bool { return t.re.Match(path) }

// String is the template as it was written.
func (t *Template) String() string { return t.text }

// A templateParser turns a template into an expression.
type templateParser struct {
	out   strings.Builder
	names map[string]bool
	last  bool // "**" was there: no operator may follow
}

func (p *templateParser) parse(text string) error {
	for len(text) > 0 {
		i := strings.IndexAny(text, templateSpecials)
		if i < 0 {
			i = len(text)
		}
		p.out.WriteString(regexp.QuoteMeta(text[:i]))
		if text = text[i:]; text == "" {
			return nil
		}
		var err error
		switch text[0] {
		case '{':
			text, err = p.variable(text[1:])
		case '}':
			err = errors.New("a } without its {")
		default:
			text, err = p.operator(text)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// operator reads "*" or "**".
func (p *templateParser) operator(text string) (rest string, err error) {
	if p.last {
		return "", errors.New("** must be the last operator")
	}
	if rest, ok := strings.CutPrefix(text, "**"); ok {
		p.last = true
		p.out.WriteString(anySegments)
		return rest, nil
	}
	p.out.WriteString(oneSegment)
	return text[1:], nil
}

// variable reads what follows a {.
func (p *templateParser) variable(text string) (rest string, err error) {
	inside, rest, ok := strings.Cut(text, "}")
	if !ok {
		return "", errors.New("a { without its }")
	}
	name, pattern, given := strings.Cut(inside, "=")
	if !given {
		pattern = "*"
	}
	switch {
	case !variableName.MatchString(name) || len(name) > maxVariableName:
		return "", fmt.Errorf("variable %q: a name is a letter, then letters, digits and _, at most %d", name, maxVariableName)
	case p.names[name]:
		return "", fmt.Errorf("variable %q: there are two of it", name)
	case len(p.names) == maxVariables:
		return "", fmt.Errorf("more than %d variables", maxVariables)
	case pattern == "" || strings.Contains(pattern, "{"):
		return "", fmt.Errorf("variable %q: %q is no pattern", name, pattern)
	}
	p.names[name] = true
	p.out.WriteString("(?P<" + name + ">")
	if err := p.parse(pattern); err != nil {
		return "", err
	}
	p.out.WriteByte(')')
	return rest, nil
}

var variableName = regexp.MustCompile(`\A[a-zA-Z][a-zA-Z0-9_]*\z`)

// A TemplateRewrite makes a path of the variables of a Template.
type TemplateRewrite struct {
	parts []rewritePart
}

// A rewritePart is literal text, or the variable of that index.
type rewritePart struct {
	literal string
	group   int // 0: literal
}

// NewRewrite compiles a path with {name} where a variable of t is to stand.
func (t *Template) NewRewrite(text string) (*TemplateRewrite, error) {
	if !strings.HasPrefix(text, "/") {
		return nil, fmt.Errorf("path rewrite %q: must begin with /", text)
	}
	out := &TemplateRewrite{}
	for rest := text; rest != ""; {
		literal, after, ok := strings.Cut(rest, "{")
		if strings.ContainsAny(literal, "}*") {
			return nil, fmt.Errorf("path rewrite %q: only {name} may stand in it", text)
		}
		out.parts = append(out.parts, rewritePart{literal: literal})
		if !ok {
			break
		}
		name, remains, closed := strings.Cut(after, "}")
		group := t.re.SubexpIndex(name)
		if !closed || group < 1 {
			return nil, fmt.Errorf("path rewrite %q: %q is no variable of the template %q", text, name, t.text)
		}
		out.parts, rest = append(out.parts, rewritePart{group: group}), remains
	}
	return out, nil
}

// Append appends the path that r makes of one that t matches.
func (t *Template) Append(dst, path []byte, r *TemplateRewrite) []byte {
	found := t.re.FindSubmatchIndex(path)
	for _, p := range r.parts {
		if p.group == 0 {
			dst = append(dst, p.literal...)
			continue
		}
		if from, to := found[2*p.group], found[2*p.group+1]; from >= 0 {
			dst = append(dst, path[from:to]...)
		}
	}
	return dst
}
