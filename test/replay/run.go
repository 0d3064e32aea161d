package replay

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// patience bounds one command that says nothing else; again is the pause between two tries.
const (
	patience = 30 * time.Second
	again    = 100 * time.Millisecond
)

// noise is no output of a command: white space at the end of lines, and what kubectl says of
// the first message of a stream, which is empty, when it is there sooner than kubectl.
var noise = regexp.MustCompile(`(?m)^E\d+ .* Unknown stream id \d, discarding message\n|[ \r]+$`)

// A Place is where scenarios run.
type Place struct {
	Work    string   // a folder that is made; each scenario has one of its own in it
	Samples string   // what samples/ is
	Prelude string   // bash that all commands have: functions for what many scenarios need
	Env     []string // of the commands
}

// Run replays the scenario of a folder. Each case is a subtest.
func (s *Script) Run(t *testing.T, p Place, scenario string) {
	readme, err := os.ReadFile(filepath.Join(scenario, "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	for _, fault := range s.compare(string(readme)) {
		t.Error(fault)
	}
	r := &runner{Place: p, dir: filepath.Join(p.Work, s.name)}
	if err := r.prepare(s, scenario); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.all(t, s.after, false) })
	r.all(t, s.before, true)
	for _, c := range s.cases {
		t.Run(c.name, func(t *testing.T) {
			r.all(t, c.steps, true)
		})
	}
	for _, file := range r.unused(s) {
		t.Errorf("%s of the scenario is not used", file)
	}
}

// compare says which commands the description and the script do not have in common.
func (s *Script) compare(readme string) (faults []string) {
	var have, literals []string
	for _, l := range Literals(readme) {
		literals = append(literals, l.Text)
	}
	for _, st := range s.every() {
		if !st.literal {
			continue
		}
		text := joined(st.text)
		have = append(have, text)
		if !strings.Contains(readme, text) && !slices.Contains(literals, text) {
			faults = append(faults, fmt.Sprintf("%s:%d: not in the description: %s", s.name, st.line, text))
		}
	}
	for _, l := range Literals(readme) {
		if !slices.ContainsFunc(have, l.is) {
			faults = append(faults, fmt.Sprintf("README.md:%d: not in the script: %s", l.Line, l.Text))
		}
	}
	return faults
}

func (s *Script) every() []*step {
	all := slices.Clone(s.before)
	for _, c := range s.cases {
		all = append(all, c.steps...)
	}
	return append(all, s.after...)
}

// A runner has the folder of one scenario.
type runner struct {
	Place
	dir  string
	yaml []string // the scenario's own files
}

// prepare makes the folder: the scenario's files, the script's, samples/.
func (r *runner) prepare(s *Script, scenario string) error {
	if err := os.MkdirAll(r.dir, 0o755); err != nil {
		return err
	}
	if err := os.Symlink(r.Samples, filepath.Join(r.dir, "samples")); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	own, err := os.ReadDir(scenario)
	if err != nil {
		return err
	}
	for _, e := range own {
		if e.IsDir() || e.Name() == "README.md" {
			continue
		}
		text, err := os.ReadFile(filepath.Join(scenario, e.Name()))
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(r.dir, e.Name()), text, 0o644); err != nil {
			return err
		}
		r.yaml = append(r.yaml, e.Name())
	}
	for _, f := range s.files {
		if err := os.WriteFile(filepath.Join(r.dir, f.Name), f.Data, 0o644); err != nil {
			return err
		}
	}
	return os.WriteFile(filepath.Join(r.dir, ".env"), nil, 0o644)
}

func (r *runner) unused(s *Script) (files []string) {
	for _, file := range r.yaml {
		if !slices.ContainsFunc(s.every(), func(st *step) bool { return strings.Contains(st.text, file) || st.here == file }) {
			files = append(files, file)
		}
	}
	return files
}

// all runs steps in order, up to the first that fails if fatal.
func (r *runner) all(t *testing.T, steps []*step, fatal bool) {
	t.Helper()
	for _, st := range steps {
		if st.open != "" {
			t.Logf("OPEN: %s: %s", joined(st.text), st.open)
			continue
		}
		fault := r.step(t, st)
		switch {
		case fault == "":
		case fatal:
			t.Fatal(fault)
		default:
			t.Error(fault)
		}
	}
}

// step runs one command until it is as expected, and says what is not.
func (r *runner) step(t *testing.T, st *step) string {
	t.Helper()
	command, err := r.command(st)
	if err != nil {
		return err.Error()
	}
	for deadline := time.Now().Add(st.within); ; time.Sleep(again) {
		output, code, took := r.bash(t.Context(), command, st.stdin)
		if st.literal {
			_ = os.WriteFile(filepath.Join(r.dir, "printed"), []byte(output), 0o644) // who reads it misses it
		}
		faults := st.judge(output, code, took)
		if len(faults) == 0 {
			t.Logf("%s\n%s[%.2f s]", command, output, took.Seconds())
			return ""
		}
		if !time.Now().Before(deadline) {
			return fmt.Sprintf("line %d: %s\n%s[exit %d, %.2f s]\n%s", st.line, command, output, code, took.Seconds(), strings.Join(faults, "\n"))
		}
	}
}

// command is what bash gets.
func (r *runner) command(st *step) (string, error) {
	text := st.text
	for i := 0; i < len(st.with); i += 2 {
		if !strings.Contains(text, st.with[i]) {
			return "", fmt.Errorf("line %d: no %s in %s", st.line, st.with[i], text)
		}
		text = strings.ReplaceAll(text, st.with[i], st.with[i+1])
	}
	if st.here != "" {
		document, err := os.ReadFile(filepath.Join(r.dir, st.here))
		if err != nil {
			return "", err
		}
		text += "\n" + strings.TrimSuffix(string(document), "\n") + "\nEOF"
	}
	if st.in != "" {
		if strings.HasSuffix(st.in, "sh -c") {
			text = "'" + strings.ReplaceAll(text, "'", `'\''`) + "'"
		}
		text = st.in + " " + text
	}
	return text, nil
}

// bash runs a command with what those before have exported, and keeps what it exports.
func (r *runner) bash(ctx context.Context, command, stdin string) (output string, code int, took time.Duration) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), patience)
	defer cancel()
	script := ". ./.env\n" + r.Prelude + "\n" + command + "\nlast=$?\n{ export -p; export -pf; } >.env\nexit $last"
	cmd := exec.CommandContext(ctx, "bash", "-c", script)
	cmd.Dir, cmd.Env = r.dir, r.Env
	cmd.Stdin = strings.NewReader(stdin)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = time.Second
	began := time.Now()
	out, err := cmd.CombinedOutput()
	took = time.Since(began)
	output = noise.ReplaceAllString(string(out), "")
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		return output, exit.ExitCode(), took
	}
	if err != nil {
		return output + err.Error() + "\n", -1, took
	}
	return output, 0, took
}

// judge says what is not as expected.
func (st *step) judge(output string, code int, took time.Duration) (faults []string) {
	if wanted := append(st.exit, 0); !slices.Contains(wanted[:max(1, len(st.exit))], code) {
		faults = append(faults, fmt.Sprintf("exit code %d, want %d", code, wanted[:max(1, len(st.exit))]))
	}
	if st.took[1] > 0 && (took < st.took[0] || took > st.took[1]) {
		faults = append(faults, fmt.Sprintf("took %v, want %v to %v", took, st.took[0], st.took[1]))
	}
	if want := st.pattern(); want != nil && !want.MatchString(output) {
		faults = append(faults, "the output is not\n"+strings.Join(st.whole, "\n"))
	}
	for _, c := range st.checks {
		if n := len(c.re.FindAllString(output, -1)); n < c.low || c.high >= 0 && n > c.high {
			faults = append(faults, fmt.Sprintf("%d times in the output: %s", n, strings.TrimPrefix(c.re.String(), "(?m)")))
		}
	}
	return faults
}

// pattern matches the whole output; nil where nothing is said of it.
func (st *step) pattern() *regexp.Regexp {
	if len(st.whole) == 0 {
		return nil
	}
	text := regexp.QuoteMeta(strings.Join(st.whole, "\n"))
	return regexp.MustCompile(`\A` + strings.ReplaceAll(text, "<…>", ".+") + `\n*\z`)
}
