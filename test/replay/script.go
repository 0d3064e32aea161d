// Package replay runs acceptance scenarios with the commands of their own descriptions,
// as a user would type them.
//
// A scenario is a folder with a README.md, whose section of steps names commands in code
// blocks and in sentences, and with the YAML that they apply. What is expected of each is
// written in a script of ours, one for each scenario. A command of a description that its
// script does not have fails the scenario; so does a command that the description has not,
// if the script says it is from there, and YAML that is not used.
//
// # Scripts
//
// A script is a txtar archive: the comment holds the lines below, the files are put into
// the scenario's folder of work beside its own YAML and samples/. What stands before the
// first case prepares; what stands after "finally" cleans up, also when a case failed.
//
//	case NAME        begins a case; names of rows of the feature surface count as proven
//
//	$ COMMAND        a command of the description, word by word
//	% COMMAND        a command that the description only tells of
//
// Bash runs each; what it exports stays for the next, and what the last command of the description
// printed is in the file printed. A line that ends in a backslash goes
// on in the next one, with the same sign before it. Then, as they are needed:
//
//	open REASON      not run: it belongs to something that is not there yet
//	with <OLD> NEW   NEW instead of a variable part of the command
//	here FILE        the text of the command's here-document
//	in COMMAND       the command goes to the end of this one; as one argument, if that is sh -c
//	stdin TEXT       a line to read
//	exit N…          the exit code, or one of several; 0 if it is not said
//	within TIME      it is repeated until it is as expected, so long at most
//	took MIN..MAX    how long it ran
//	= LINE           the whole output, line by line; <…> is any text
//	~ REGEXP         is in the output
//	! REGEXP         is not
//	count N..M RE    so often is it in the output
package replay

import (
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"time"

	"golang.org/x/tools/txtar"
)

// A Script says what is expected of a scenario's commands.
type Script struct {
	name          string
	files         []txtar.File
	before, after []*step
	cases         []*scene
}

// A scene is one case of a script.
type scene struct {
	name  string
	steps []*step
}

// A step is one command and what is expected of it.
type step struct {
	line     int
	literal  bool
	text     string // as written, with line ends
	open     string
	with     []string // old and new in turn
	here, in string
	stdin    string
	exit     []int
	within   time.Duration
	took     [2]time.Duration
	whole    []string
	checks   []check
}

// A check is how often something is in the output.
type check struct {
	re        *regexp.Regexp
	low, high int // high < 0: any number
}

// Parse reads a script; its name is for messages.
func Parse(name string, text []byte) (*Script, error) {
	archive := txtar.Parse(text)
	s := &Script{name: name, files: archive.Files}
	p := &parser{script: s, into: &s.before}
	for i, line := range strings.Split(string(archive.Comment), "\n") {
		if err := p.read(i+1, line); err != nil {
			return nil, fmt.Errorf("%s:%d: %w", name, i+1, err)
		}
	}
	if len(s.cases) == 0 {
		return nil, fmt.Errorf("%s: no case", name)
	}
	return s, nil
}

// A parser knows where the next line belongs.
type parser struct {
	script *Script
	into   *[]*step
	last   *step
}

func (p *parser) read(n int, line string) error {
	word, rest, _ := strings.Cut(strings.TrimRight(line, " "), " ")
	switch word {
	case "", "#":
		return nil
	case "case":
		c := &scene{name: rest}
		p.script.cases, p.into, p.last = append(p.script.cases, c), &c.steps, nil
		return nil
	case "finally":
		p.into, p.last = &p.script.after, nil
		return nil
	case "$", "%":
		return p.command(n, word == "$", rest)
	}
	if p.last == nil {
		return fmt.Errorf("%q belongs to a command", line)
	}
	return p.last.expect(word, rest)
}

func (p *parser) command(n int, literal bool, text string) error {
	if p.last != nil && strings.HasSuffix(p.last.text, more) {
		if p.last.literal != literal {
			return fmt.Errorf("the command goes on with another sign")
		}
		p.last.text += "\n" + text
		return nil
	}
	p.last = &step{line: n, literal: literal, text: text}
	*p.into = append(*p.into, p.last)
	return nil
}

func (s *step) expect(word, rest string) (err error) {
	switch word {
	case "open":
		s.open = rest
	case "with":
		before, after, ok := strings.Cut(rest, "> ")
		if !ok {
			return fmt.Errorf("with <OLD> NEW")
		}
		s.with = append(s.with, before+">", after)
	case "here":
		s.here = rest
	case "in":
		s.in = rest
	case "stdin":
		s.stdin = rest + "\n"
	case "exit":
		for code := range strings.FieldsSeq(rest) {
			n, wrong := strconv.Atoi(code)
			s.exit, err = append(s.exit, n), errors.Join(err, wrong)
		}
	case "within":
		s.within, err = time.ParseDuration(rest)
	case "took":
		low, high, _ := strings.Cut(rest, "..")
		if s.took[0], err = time.ParseDuration(low); err == nil {
			s.took[1], err = time.ParseDuration(high)
		}
	case "=":
		s.whole = append(s.whole, rest)
	case "~":
		return s.check(rest, 1, -1)
	case "!":
		return s.check(rest, 0, 0)
	case "count":
		return s.count(rest)
	default:
		return fmt.Errorf("no word %q", word)
	}
	return err
}

func (s *step) count(text string) error {
	bounds, re, _ := strings.Cut(text, " ")
	var low, high int
	if _, err := fmt.Sscanf(bounds, "%d..%d", &low, &high); err != nil {
		return fmt.Errorf("count N..M REGEXP: %w", err)
	}
	return s.check(re, low, high)
}

func (s *step) check(text string, low, high int) error {
	re, err := regexp.Compile("(?m)" + text)
	s.checks = append(s.checks, check{re, low, high})
	return err
}
