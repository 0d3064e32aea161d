package replay

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

const readme = "# 99 A scenario\n" +
	"\n## Goal\n\n`kubectl get nothing`\n" +
	"\n## Steps and expected output\n\n" +
	"1. `istioctl install` asks; `-y` does not, nor does `… curl -s http://a.example`.\n" +
	"2. ```\n" +
	"   $ kubectl get cm istio -o yaml \\\n" +
	"     | grep mode\n" +
	"       mode: ALLOW_ANY\n" +
	"   export A=$(kubectl get x)\n" +
	"   ```\n" +
	"3. the same with `curl --resolve`\n" +
	"\n## Files\n\n`kubectl delete nothing`\n"

func TestLiterals(t *testing.T) {
	want := []Literal{
		{"istioctl install", 9},
		{"curl -s http://a.example", 9},
		{"kubectl get cm istio -o yaml | grep mode", 11},
		{"export A=$(kubectl get x)", 14},
		{"curl --resolve", 16},
	}
	if diff := cmp.Diff(want, Literals(readme)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// A script has all commands of the description, and says of no other that it is from there.
func TestCompare(t *testing.T) {
	const all = "case x\n$ istioctl install\n$ curl -s http://a.example\n$ kubectl get cm istio -o yaml \\\n$ | grep mode\n$ export A=$(kubectl get x)\n% curl -s --resolve a:80:b http://a\n"
	for _, tt := range []struct {
		name, script string
		want         []string
	}{
		{"one is only told of with other words", all, []string{"README.md:16: not in the script: curl --resolve"}},
		{"all", all + "$ curl --resolve a:80:b http://a\n", []string{"99:8: not in the description: curl --resolve a:80:b http://a"}},
		{"one is missing", strings.Replace(all, "$ istioctl", "% istioctl", 1),
			[]string{"README.md:9: not in the script: istioctl install", "README.md:16: not in the script: curl --resolve"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s, err := Parse("99", []byte(tt.script))
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.want, s.compare(readme)); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func TestParseRefuses(t *testing.T) {
	for _, tt := range []struct{ name, script, want string }{
		{"nothing", "", "99: no case"},
		{"what belongs to a command without one", "case x\n= text\n", `99:2: "= text" belongs to a command`},
		{"a word that is none", "case x\n$ a\nwant b\n", `99:3: no word "want"`},
		{"a bad number", "case x\n$ a\nexit one\n", "99:3: strconv.Atoi"},
		{"a bad regular expression", "case x\n$ a\n~ (\n", "99:3: error parsing regexp"},
		{"a command that goes on with another sign", "case x\n$ a \\\n% b\n", "99:3: the command goes on with another sign"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := Parse("99", []byte(tt.script))
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error is %v, want %s", err, tt.want)
			}
		})
	}
}

func TestJudge(t *testing.T) {
	const output = "HTTP/1.1 200 OK\ndate: today\n\n"
	for _, tt := range []struct {
		name, script string
		code, faults int
	}{
		{"nothing is said", "$ a", 0, 0},
		{"a code that is not said", "$ a", 1, 1},
		{"one of two codes", "$ a\nexit 1 2", 2, 0},
		{"none of two codes", "$ a\nexit 1 2", 0, 1},
		{"all lines", "$ a\n= HTTP/1.1 200 OK\n= date: <…>", 0, 0},
		{"a line is missing", "$ a\n= HTTP/1.1 200 OK", 0, 1},
		{"a part", "$ a\n~ ^date: \\w+$", 0, 0},
		{"a part that is not there", "$ a\n~ ^server", 0, 1},
		{"a part that must not be there", "$ a\n! 200", 0, 1},
		{"often enough", "$ a\ncount 2..2 2", 0, 1},
		{"too slow", "$ a\ntook 1s..2s", 0, 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s, err := Parse("99", []byte("case x\n"+tt.script+"\n"))
			if err != nil {
				t.Fatal(err)
			}
			if got := s.cases[0].steps[0].judge(output, tt.code, 3*time.Second); len(got) != tt.faults {
				t.Errorf("faults are %q, want %d", got, tt.faults)
			}
		})
	}
}

// What a scenario has, what a script adds and what commands export is there for those that follow.
func TestRun(t *testing.T) {
	work, scenario := t.TempDir(), t.TempDir()
	for name, text := range map[string]string{
		"README.md": "## Steps\n\n`export A=<a word>`, `curl -f <file>`, `kubectl apply -f - <<EOF`\n",
		"own.yaml":  "kind: Own\n",
	} {
		if err := os.WriteFile(filepath.Join(scenario, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	script := fmt.Sprintf(`
case one
$ export A=<a word>
with <a word> "two words"
%% read line; echo "$A and $line"; echo said >&2
stdin from outside
= two words and from outside
= said
%% echo tried >>count; wc -l <count
within 10s
~ ^3$

case two
$ curl -f <file>
with <file> samples/text
in bash -c
exit 1
~ ^curl -f samples/text$
$ kubectl apply -f - <<EOF
here own.yaml
= kind: Own
%% echo "$A"; ls %s/99
= two words
= added
= count
= own.yaml
= printed
= samples

finally
%% touch %s/ended
-- added --
`, work, work)
	s, err := Parse("99", []byte(script))
	if err != nil {
		t.Fatal(err)
	}
	t.Run("scenario", func(t *testing.T) {
		s.Run(t, Place{Work: work, Samples: t.TempDir(), Env: os.Environ(), Prelude: "curl() { echo curl \"$@\"; return 1; }\nexport -f curl\nkubectl() { cat; }\n"}, scenario)
	})
	if _, err := os.Stat(filepath.Join(work, "ended")); err != nil {
		t.Errorf("what follows finally has not run: %v", err)
	}
}
