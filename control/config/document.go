package config

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// maxText is the largest text that is decoded, in bytes. It is room for tens of
// thousands of objects.
const maxText = 64 << 20

// A chunk is a part of a text that is parsed by itself, so that a syntax error
// spoils no more than the document it is in.
type chunk struct {
	text  []byte
	above int // lines of the text before this one
}

// split cuts a text before each line that begins with "---" and after each "...".
// By the YAML specification such lines are document markers everywhere, even
// within block scalars.
func split(text []byte) []chunk {
	text = bytes.TrimPrefix(text, []byte("\xef\xbb\xbf"))
	if bytes.HasPrefix(text, []byte("\xff\xfe")) || bytes.HasPrefix(text, []byte("\xfe\xff")) {
		return []chunk{{text: text}} // UTF-16: the parser converts it
	}
	var chunks []chunk
	start, line, above := 0, 0, 0
	marked, content := false, false // what the current chunk has: a marker; more than comments and directives
	for i := 0; i < len(text); line++ {
		next := len(text)
		if nl := bytes.IndexByte(text[i:], '\n'); nl >= 0 {
			next = i + nl + 1
		}
		if isLine(text[i:next], "...") { // the end of a document; directives of the next may follow
			if content {
				chunks = append(chunks, chunk{text[start:next], above})
			}
			start, above, marked, content, i = next, line+1, false, false, next
			continue
		}
		rest := text[i:next]
		if isLine(rest, "---") {
			if content {
				chunks = append(chunks, chunk{text[start:i], above})
			}
			if content || marked { // without both it is the end of the document's directives
				start, above = i, line
			}
			marked, content, rest = true, false, rest[len("---"):]
		}
		if first := bytes.TrimLeft(rest, " \t\r\n"); len(first) > 0 && first[0] != '#' && (first[0] != '%' || marked) {
			content = true
		}
		i = next
	}
	return append(chunks, chunk{text[start:], above})
}

// isLine reports whether a line is a document marker, alone or before something.
func isLine(line []byte, marker string) bool {
	rest, ok := bytes.CutPrefix(line, []byte(marker))
	return ok && (len(rest) == 0 || strings.IndexByte(" \t\r\n", rest[0]) >= 0)
}

// parse reads the documents of a chunk as node trees with the lines of the whole
// text. Empty documents are left out.
func (c chunk) parse() (docs []*yaml.Node, err error) {
	defer func() {
		if p := recover(); p != nil { // the parser's own guard for states it holds impossible
			err = fmt.Errorf("cannot be parsed: %v", p)
		}
	}()
	dec := yaml.NewDecoder(bytes.NewReader(c.text))
	for {
		var n yaml.Node
		if err := dec.Decode(&n); errors.Is(err, io.EOF) {
			return docs, nil
		} else if err != nil {
			return docs, err
		}
		if n.Kind != yaml.DocumentNode || len(n.Content) == 0 || isNull(n.Content[0]) {
			continue
		}
		shift(&n, c.above)
		docs = append(docs, n.Content[0])
	}
}

// shift moves the lines of a tree down. Aliases point into the tree and are not
// followed.
func shift(n *yaml.Node, by int) {
	n.Line += by
	for _, child := range n.Content {
		shift(child, by)
	}
}

// syntaxProblem turns the parser's "yaml: line 3: …" into a Problem.
func syntaxProblem(name string, c chunk, err error) Problem {
	line, message := 1, strings.TrimPrefix(err.Error(), "yaml: ")
	if m := regexp.MustCompile(`^line (\d+): `).FindStringSubmatch(message); m != nil {
		line, _ = strconv.Atoi(m[1])
		message = message[len(m[0]):]
	}
	p := Problem{Source: Source{File: name, Line: c.above + line}, Message: "YAML syntax: " + message}
	if strings.Contains(message, "cannot start any token") && bytes.Contains(c.text, []byte("\t")) {
		p.Hint = "indent with spaces; YAML does not allow tabs"
	}
	return p
}
