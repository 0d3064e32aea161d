package logging_test

import (
	"bytes"
	"errors"
	"io"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/lateen-mesh/lateen/logging"
)

func newLog(t *testing.T, o logging.Options) (*logging.Log, *bytes.Buffer) {
	t.Helper()
	var out bytes.Buffer
	o.Output = &out
	l, err := logging.New(o)
	if err != nil {
		t.Fatal(err)
	}
	return l, &out
}

func TestLine(t *testing.T) {
	// In a bubble the clock starts at midnight UTC 2000-01-01.
	const at = "2000-01-01T00:00:00.000000Z"
	write := func(l *logging.Log) {
		l.Scope("ads").With("proxy", "gw.istio-system").WithGroup("push").Info("NACK",
			"type", "CDS", "error", errors.New("no \"such\" filter"), "n", 3, slog.Group("g", "a", true))
		l.Scope(logging.DefaultScope).Warn("two\nlines", "empty", "")
		l.Scope("ads").Debug("not shown")
	}
	for _, c := range []struct {
		name string
		json bool
		want string
	}{
		{"text", false, at + "\tinfo\tads\tNACK\tproxy=gw.istio-system push.type=CDS push.error=\"no \\\"such\\\" filter\" push.n=3 push.g.a=true\n" +
			at + "\twarn\ttwo\\nlines\tempty=\"\"\n"},
		{"json", true, `{"level":"info","time":"` + at + `","scope":"ads","msg":"NACK","proxy":"gw.istio-system","push.type":"CDS","push.error":"no \"such\" filter","push.n":3,"push.g.a":true}` + "\n" +
			`{"level":"warn","time":"` + at + `","msg":"two\nlines","empty":""}` + "\n"},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l, out := newLog(t, logging.Options{JSON: c.json})
				write(l)
				if out.String() != c.want {
					t.Errorf("got\n%swant\n%s", out, c.want)
				}
			})
		})
	}
}

func TestLevels(t *testing.T) {
	t.Run("EN-025 default:info,ads:debug", func(t *testing.T) {
		l, out := newLog(t, logging.Options{Levels: "default:info,ads:debug"})
		l.Scope("config").Debug("hidden")
		l.Scope("ads").Debug("shown")
		if got := out.String(); strings.Contains(got, "hidden") || !strings.Contains(got, "debug\tads\tshown") {
			t.Errorf("got %q", got)
		}
	})
	t.Run("a change reaches loggers already handed out", func(t *testing.T) {
		l, out := newLog(t, logging.Options{Levels: "warn"})
		config, ads := l.Scope("config"), l.Scope("ads")
		if err := l.SetLevels("ads:error"); err != nil {
			t.Fatal(err)
		}
		if err := l.SetLevels("default:debug"); err != nil {
			t.Fatal(err)
		}
		config.Debug("one")
		ads.Warn("two")
		if got := out.String(); !strings.Contains(got, "one") || strings.Contains(got, "two") {
			t.Errorf("got %q", got)
		}
		if got, want := l.Levels(), "default:debug,ads:error"; got != want {
			t.Errorf("levels %q, want %q", got, want)
		}
	})
	t.Run("scopes that nobody has are known", func(t *testing.T) {
		l, _ := newLog(t, logging.Options{Levels: "default:warn,adz:debug,ads:debug"})
		l.Scope("ads")
		l.Scope("config")
		if got := l.Unused(); !slices.Equal(got, []string{"adz"}) {
			t.Errorf("unused %q, want adz", got)
		}
	})
	t.Run("a wrong word changes nothing", func(t *testing.T) {
		l, _ := newLog(t, logging.Options{Levels: "all:warn"})
		err := l.SetLevels("default:debug,ads:loud")
		if err == nil || !strings.Contains(err.Error(), `"ads:loud"`) {
			t.Errorf("error %v", err)
		}
		if got, want := l.Levels(), "default:warn"; got != want {
			t.Errorf("levels %q, want %q", got, want)
		}
	})
}

func TestLongValueIsCut(t *testing.T) {
	l, out := newLog(t, logging.Options{})
	l.Scope("ads").Info("NACK", "error", strings.Repeat("ä", 1<<20))
	if n := out.Len(); n > 9<<10 {
		t.Errorf("line of %d bytes", n)
	}
}

func TestDiscard(t *testing.T) {
	if logging.Discard().Scope("x").Enabled(t.Context(), logging.LevelFatal) {
		t.Error("a discarded log takes fatal records")
	}
}

func BenchmarkLine(b *testing.B) {
	l, err := logging.New(logging.Options{Output: io.Discard})
	if err != nil {
		b.Fatal(err)
	}
	log := l.Scope("ads")
	b.ReportAllocs()
	for b.Loop() {
		log.Info("push", "proxy", "gw.istio-system", "type", "CDS")
	}
}
