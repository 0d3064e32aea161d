package main

import (
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// A rule is a CEL expression that must be true of a value.
type rule struct {
	Message string `json:"message"`
	Rule    string `json:"rule"`
}

// ruleMark is how a marker states a rule; the expression may hold quotes itself.
var ruleMark = regexp.MustCompile(`^message="([^"]*)",rule="(.*)"$`)

// bounds adds to a node what the markers of an element with prefix say: lengths,
// limits, patterns and rules, but for the rules whose message is in without.
func (s structure) bounds(node schema, element, prefix string, without []string) error {
	for _, mark := range s.marks.with(element, prefix) {
		name, value, _ := strings.Cut(mark, "=")
		if rest, ok := strings.CutPrefix(mark, "XValidation:"); ok {
			name, value = "XValidation", rest
		}
		if err := bound(node, name, value, without); err != nil {
			return fmt.Errorf("%s: marker %s: %w", element, mark, err)
		}
	}
	return nil
}

func bound(node schema, name, value string, without []string) error {
	switch name {
	case "Minimum", "Maximum", "MinLength", "MaxLength", "MinItems", "MaxItems", "MinProperties", "MaxProperties":
		n, err := strconv.ParseInt(value, 10, 64)
		if err != nil {
			return err
		}
		node[strings.ToLower(name[:1])+name[1:]] = n
	case "Pattern":
		node["pattern"] = strings.Trim(value, "`\"")
	case "XValidation":
		found := ruleMark.FindStringSubmatch(value)
		if found == nil {
			return fmt.Errorf("not message=…,rule=…")
		}
		if slices.Contains(without, found[1]) {
			return nil
		}
		expression, err := expand(found[2])
		if err != nil {
			return err
		}
		old, _ := node["x-kubernetes-validations"].([]any)
		node["x-kubernetes-validations"] = append(old, rule{found[1], expression})
	default:
		return fmt.Errorf("unknown")
	}
	return nil
}

// The short forms that the markers' expressions use and CEL has not:
//
//	default(a.b, c)       a.b when it is there, else c
//	oneof(a, b, …)        at most one of them is there
//	self.index(c, a, b)   self.a.b when it is there, else c
var shortForm = regexp.MustCompile(`\b(default|oneof|self\.index)\(`)

// expand writes the short forms out.
func expand(expression string) (string, error) {
	for {
		at := shortForm.FindStringSubmatchIndex(expression)
		if at == nil {
			return expression, nil
		}
		args, length, err := arguments(expression[at[1]:])
		if err != nil {
			return "", fmt.Errorf("%s: %w", expression, err)
		}
		form := expression[at[2]:at[3]]
		if fewest := map[string]int{"default": 2, "oneof": 1, "self.index": 2}[form]; len(args) < fewest {
			return "", fmt.Errorf("%s: %s has %d arguments, at least %d", expression, form, len(args), fewest)
		}
		expression = expression[:at[0]] + "(" + long(form, args) + ")" + expression[at[1]+length:]
		if len(expression) > maxExpression {
			return "", fmt.Errorf("longer than %d bytes when written out", maxExpression)
		}
	}
}

// maxExpression bounds what short forms inside of short forms grow to.
const maxExpression = 8 << 10

func long(form string, args []string) string {
	switch form {
	case "default":
		return "has(" + args[0] + ") ? " + args[0] + " : " + args[1]
	case "oneof":
		var terms []string
		for _, arg := range args {
			terms = append(terms, "(has("+arg+") ? 1 : 0)")
		}
		return strings.Join(terms, " + ") + " <= 1"
	}
	path, present := "self", []string(nil)
	for _, name := range args[1:] {
		path += "." + name
		present = append(present, "has("+path+")")
	}
	return strings.Join(present, " && ") + " ? " + path + " : " + args[0]
}

// arguments splits what stands in parentheses at its commas; text begins after
// the opening one, length counts up to and with the closing one.
func arguments(text string) (args []string, length int, err error) {
	depth, start, quote := 0, 0, rune(0)
	for i, c := range text {
		switch {
		case quote != 0:
			if c == quote {
				quote = 0
			}
		case c == '\'' || c == '"':
			quote = c
		case c == ')' && depth == 0:
			return append(args, strings.TrimSpace(text[start:i])), i + 1, nil
		case strings.ContainsRune("([{", c):
			depth++
		case strings.ContainsRune(")]}", c):
			depth--
		case c == ',' && depth == 0:
			args, start = append(args, strings.TrimSpace(text[start:i])), i+1
		}
	}
	return nil, 0, fmt.Errorf("a parenthesis stays open")
}
