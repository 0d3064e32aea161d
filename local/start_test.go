package local

import (
	"bytes"
	"context"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

// Every setting survives the way to the supervisor's process; what a process cannot hand
// over does not.
func TestHandover(t *testing.T) {
	given := Options{Paths: []string{"-", "a b"}, State: "/s", MeshConfig: "m.yaml", Set: []string{"meshConfig.a=b"},
		Resolve: map[string][]netip.Addr{"a.example": {netip.MustParseAddr("127.0.0.1"), netip.MustParseAddr("::1")}},
		Publish: map[int]int{80: 8080}, LogLevels: "ads:debug", Bin: "bin", Proxy: "envoy", Pods: true, APIPort: 6444,
		Images: map[string]string{"my/app": "app --x '1 2'"}}
	whole := reflect.ValueOf(given)
	for i := range whole.NumField() {
		if f := whole.Type().Field(i); f.Tag.Get("json") != "-" && whole.Field(i).IsZero() {
			t.Errorf("this test gives no %s", f.Name)
		}
	}
	given.Stdin, given.Stdout, given.Progress = strings.NewReader(""), &bytes.Buffer{}, func(string) {}
	f, err := handOver(given)
	if err != nil {
		t.Fatal(err)
	}
	got, err := takeOver(f)
	given.Stdin, given.Stdout, given.Progress = nil, nil, nil
	if err != nil || !reflect.DeepEqual(got, given) {
		t.Errorf("got %+v, %v\nwant %+v", got, err, given)
	}
	nothing, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := takeOver(nothing); HintOf(err) != "this program is started by lateen up" {
		t.Errorf("no options: %v", err)
	}
}

// A supervisor that cannot be started, or ends without a word, is an error with a hint.
func TestDetachFails(t *testing.T) {
	for name, c := range map[string]struct{ script, want, hint string }{
		"no program": {"", "lateen-engine is not there", "make build"},
		"no word":    {"exit 0", "the supervisor ended without a word", "its log: "},
		"no status":  {"echo '{}' >&4", "the supervisor sent no status", ""},
		"an error":   {`echo '{"error":"port 80","hint":"try 81"}' >&4`, "port 80", "try 81"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			if c.script != "" {
				if err := os.WriteFile(filepath.Join(dir, engineProgram), []byte("#!/bin/sh\n"+c.script+"\n"), 0o755); err != nil {
					t.Fatal(err)
				}
			}
			_, err := Detach(context.Background(), Options{State: t.TempDir(), Bin: dir})
			if err == nil || !strings.Contains(err.Error(), c.want) || !strings.Contains(HintOf(err), c.hint) {
				t.Errorf("error %v (%s)", err, HintOf(err))
			}
		})
	}
}

// What parts say stands above the line of progress, and neither spoils the other.
func TestProgress(t *testing.T) {
	var terminal bytes.Buffer
	p := &progress{terminal: &terminal}
	out := p.above(&terminal)
	_, _ = out.Write([]byte("before\n"))
	p.show("starting")
	p.show("starting")
	_, _ = out.Write([]byte("a part speaks\n"))
	p.clear()
	p.clear()
	_, _ = out.Write([]byte("after\n"))
	const gone = "\r\x1b[K"
	if want := "before\n" + gone + "starting …" + gone + "a part speaks\nstarting …" + gone + "after\n"; terminal.String() != want {
		t.Errorf("got %q, want %q", terminal.String(), want)
	}
	quiet := newProgress(&terminal)
	terminal.Reset()
	quiet.show("starting")
	quiet.clear()
	if terminal.Len() > 0 {
		t.Errorf("not on a terminal: %q", terminal.String())
	}
}
