package dump

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"sigs.k8s.io/yaml"
)

// A List is resources of one kind, chosen and in order, ready to be printed.
type List struct {
	kind     string // as `proxy-config all` puts it before names
	names    []string
	header   []string
	rows     [][]string
	padding  int
	messages []proto.Message
	single   bool // the JSON is the message itself, not an array
}

// forms are the values of -o.
var forms = []string{"short", "json", "yaml"}

// CheckForm finds a wrong -o before anything is done.
func CheckForm(form string) error {
	if slices.Contains(forms, form) {
		return nil
	}
	return fmt.Errorf("output format %q: must be one of json|yaml|short", form)
}

// Write prints the list: short is a table, json and yaml are the resources whole.
func (l *List) Write(w io.Writer, form string) error {
	if form == "short" {
		return l.table(w, l.header, l.rows)
	}
	text, err := l.json()
	if err != nil {
		return err
	}
	return write(w, form, text)
}

// WriteNamed prints the table of `proxy-config all`, in which every row begins with the
// kind of its resource.
func (l *List) WriteNamed(w io.Writer) error {
	header, rows := l.header, make([][]string, len(l.rows))
	for i, row := range l.rows {
		name := l.kind + "/" + row[0]
		if l.names != nil {
			rows[i] = append([]string{l.kind + "/" + l.names[i]}, row...)
			if l.kind == "cluster" && row[0] == l.names[i] {
				rows[i][1] = name // what is of no service has its name there, in both columns alike
			}
			continue
		}
		rows[i] = append([]string{name}, row[1:]...)
	}
	if l.names != nil {
		header = append([]string{"NAME"}, header...)
	}
	return l.table(w, header, rows)
}

func (l *List) table(w io.Writer, header []string, rows [][]string) error {
	t := tabwriter.NewWriter(w, 0, 8, l.padding, ' ', 0)
	if header != nil {
		fmt.Fprintln(t, strings.Join(header, "\t"))
	}
	for _, row := range rows {
		for i, cell := range row {
			row[i] = printable(cell)
		}
		fmt.Fprintln(t, strings.Join(row, "\t"))
	}
	return t.Flush()
}

// printable keeps names of a dump from ending a cell or a line.
func printable(cell string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return '?'
		}
		return r
	}, cell)
}

func (l *List) json() ([]byte, error) {
	if l.single {
		return compact(l.messages[0])
	}
	return array(l.messages)
}

func array(messages []proto.Message) ([]byte, error) {
	all := []json.RawMessage{}
	for _, m := range messages {
		text, err := compact(m)
		if err != nil {
			return nil, err
		}
		all = append(all, text)
	}
	return json.Marshal(all)
}

// compact is a message in JSON without the spaces that protojson varies.
func compact(m proto.Message) ([]byte, error) {
	text, err := protojson.Marshal(m)
	if err != nil {
		return nil, err
	}
	var b bytes.Buffer
	if err := json.Compact(&b, text); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}

// write prints JSON as istioctl does.
func write(w io.Writer, form string, text []byte) error {
	var b bytes.Buffer
	switch form {
	case "json":
		if err := json.Indent(&b, text, "", "    "); err != nil {
			return err
		}
		b.WriteByte('\n')
	case "yaml":
		out, err := yaml.JSONToYAML(text)
		if err != nil {
			return err
		}
		b.Write(out)
	default:
		return CheckForm(form)
	}
	_, err := w.Write(b.Bytes())
	return err
}

// WriteMessages prints an array of messages, in the form json or yaml.
func WriteMessages(w io.Writer, form string, messages []proto.Message) error {
	text, err := array(messages)
	if err != nil {
		return err
	}
	return write(w, form, text)
}

// WriteMessage prints one message, in the form json or yaml.
func WriteMessage(w io.Writer, form string, m proto.Message) error {
	text, err := compact(m)
	if err != nil {
		return err
	}
	return write(w, form, text)
}
