package match

import (
	"errors"
	"fmt"
	"regexp"
	"regexp/syntax"

	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
)

// Limits of one pattern: bytes of its text, and instructions of its program. Matching
// is linear in both, so they bound what a request can cost.
const (
	maxPattern = 16 << 10
	maxProgram = 64 << 10
)

// NewRegex compiles a RegexMatcher: RE2 syntax, the whole value must match.
// max_program_size counts instructions of Envoy's library, not of ours, and is ignored.
func NewRegex(m *matcherv3.RegexMatcher) (*regexp.Regexp, error) {
	return compile(m.GetRegex(), `\A(?:`, `)\z`)
}

// NewRewrite compiles the pattern of a RegexMatchAndSubstitute, which may match
// anywhere, and turns its substitution (\1, \\) into the expansion syntax of package regexp.
func NewRewrite(m *matcherv3.RegexMatchAndSubstitute) (*regexp.Regexp, string, error) {
	re, err := compile(m.GetPattern().GetRegex(), "", "")
	if err != nil {
		return nil, "", fmt.Errorf("pattern: %w", err)
	}
	text, err := substitution(m.GetSubstitution(), re.NumSubexp())
	if err != nil {
		return nil, "", fmt.Errorf("substitution: %w", err)
	}
	return re, text, nil
}

func compile(text, before, after string) (*regexp.Regexp, error) {
	if text == "" {
		return nil, errors.New("regex: must not be empty")
	}
	if len(text) > maxPattern {
		return nil, fmt.Errorf("regex of %d bytes: at most %d", len(text), maxPattern)
	}
	parsed, err := syntax.Parse(text, syntax.Perl)
	if err != nil {
		return nil, fmt.Errorf("regex %q: %w", text, err)
	}
	program, err := syntax.Compile(parsed.Simplify())
	if err != nil {
		return nil, fmt.Errorf("regex %q: %w", text, err)
	}
	if len(program.Inst) > maxProgram {
		return nil, fmt.Errorf("regex %q: program of %d instructions, at most %d", text, len(program.Inst), maxProgram)
	}
	return regexp.Compile(before + text + after)
}

// substitution rewrites RE2's \0…\9 and \\ as ${0}…${9} and \, and protects $.
func substitution(text string, groups int) (string, error) {
	var out []byte
	for i := 0; i < len(text); i++ {
		switch c := text[i]; {
		case c == '$':
			out = append(out, "$$"...)
		case c != '\\':
			out = append(out, c)
		case i+1 == len(text):
			return "", errors.New(`ends in a single \`)
		default:
			i++
			if text[i] == '\\' {
				out = append(out, '\\')
				continue
			}
			if text[i] < '0' || text[i] > '9' {
				return "", fmt.Errorf(`\%c: only \0 to \9 and \\ are known`, text[i])
			}
			if int(text[i]-'0') > groups {
				return "", fmt.Errorf(`\%c: the pattern has %d groups`, text[i], groups)
			}
			out = append(out, '$', '{', text[i], '}')
		}
	}
	return string(out), nil
}
