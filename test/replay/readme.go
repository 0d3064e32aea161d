package replay

import (
	"regexp"
	"strings"
)

// A Literal is a command of a scenario as its description gives it, on one line:
// continued lines are joined by one blank.
type Literal struct {
	Text string
	Line int // in the description, from 1
}

const (
	steps  = "## Steps"
	prompt = "$ "
	more   = `\`
)

// command begins a line that a user types. What else is in a block is what he sees.
var command = regexp.MustCompile(`^(kubectl|istioctl|curl|export|fortio|openssl|jq) \S`)

// span is code within a sentence. An ellipsis before it stands for what was said before.
var span = regexp.MustCompile("`(?:… )?([^`]+)`")

// Literals are the commands of a scenario's steps, in order: those of code blocks, and
// those that sentences name.
func Literals(readme string) []Literal {
	var all []Literal
	inSteps, inBlock := false, false
	lines := strings.Split(readme, "\n")
	for i := 0; i < len(lines); i++ {
		line := strings.TrimSpace(lines[i])
		first := i + 1
		block := line
		if strings.Contains(line, "```") {
			inBlock = !inBlock
			continue
		}
		switch {
		case strings.HasPrefix(line, "## "):
			inSteps = strings.HasPrefix(line, steps)
		case !inSteps:
		case inBlock:
			for strings.HasSuffix(block, more) && i+1 < len(lines) {
				i++
				block += "\n" + strings.TrimSpace(lines[i])
			}
			if text := strings.TrimPrefix(joined(block), prompt); command.MatchString(text) {
				all = append(all, Literal{text, first})
			}
		default:
			for _, m := range span.FindAllStringSubmatch(line, -1) {
				if command.MatchString(m[1]) {
					all = append(all, Literal{m[1], first})
				}
			}
		}
	}
	return all
}

// is reports whether a command is the literal. Where a sentence only names an option of a
// command, any command with it is.
func (l Literal) is(command string) bool {
	name, option, _ := strings.Cut(l.Text, " ")
	if strings.HasPrefix(option, "-") && !strings.Contains(option, " ") {
		return strings.HasPrefix(command, name+" ") && strings.Contains(command, " "+option+" ")
	}
	return command == l.Text
}

// joined is a command without its line ends.
func joined(command string) string {
	var parts []string
	for line := range strings.SplitSeq(command, "\n") {
		parts = append(parts, strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(line), more)))
	}
	return strings.Join(parts, " ")
}
