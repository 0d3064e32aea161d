package test

import (
	"context"
	"errors"
	"flag"
	"image"
	"image/color"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/lateen-mesh/lateen/local/namespace"
	"github.com/lateen-mesh/lateen/test/browser"
	"github.com/lateen-mesh/lateen/test/ports"
)

var pictures = flag.Bool("pictures", false, "write what the browser sees of Bookinfo to docs/")

// A shop is Bookinfo in a mesh of a user's, as `make demo` has it.
type shop struct {
	bin, state, home string
	uid              int
	page             string // what `lateen up` says that a browser may look at
}

// TestBookinfoInABrowser looks at the page through gateway and sidecars, as root and as
// an ordinary user, while rules say who sees which version.
func TestBookinfoInABrowser(t *testing.T) {
	if testing.Short() {
		t.Skip("a mesh and a browser take their time: not in short runs")
	}
	b, bin := browser.Open(t), engineDir(t)
	var refusal *namespace.Refusal
	if _, err := namespace.Probe(t.Context(), filepath.Join(bin, "lateen-engine")); errors.As(err, &refusal) {
		t.Skipf("%v (%s)", err, refusal.Hint)
	}
	for _, who := range []struct {
		name string
		uid  int
	}{{"root", 0}, {"user", nobody}} {
		if who.uid != os.Geteuid() && os.Geteuid() != 0 {
			continue // an ordinary user tests his own way
		}
		t.Run(who.name, func(t *testing.T) {
			s := openShop(t, bin, who.uid)
			s.apply(t, "destination-rule-all.yaml")
			for _, tt := range []struct {
				picture, rule string
				look          func() image.Image
				shows, hides  string // expressions of the page as it is
				stars         color.RGBA
			}{
				{"bookinfo-v1", "virtual-service-all-v1.yaml", func() image.Image { return b.Look(t, s.page) }, `reviews-v1-`, `<font`, color.RGBA{}},
				{"bookinfo-v3", "virtual-service-reviews-v3.yaml", func() image.Image { return b.Look(t, s.page) }, `reviews-v3-`, `"black"`, color.RGBA{R: 255, A: 255}},
				{"bookinfo-jason", "virtual-service-reviews-test-v2.yaml",
					func() image.Image {
						return b.LookSignedIn(t, strings.Replace(s.page, "/productpage", "/login", 1), "jason")
					},
					`reviews-v1-`, `<font`, color.RGBA{A: 255}},
			} {
				s.apply(t, tt.rule)
				s.await(t, tt.shows, tt.hides)
				seen := tt.look()
				for _, c := range []color.RGBA{{R: 255, A: 255}, {A: 255}} {
					if n := browser.Count(seen, c); (n > 9*60) != (c == tt.stars) || n > 0 && c != tt.stars {
						t.Errorf("%s: %d pixels are %v", tt.rule, n, c)
					}
				}
				if *pictures {
					if err := browser.Save(filepath.Join("..", "docs", tt.picture+".png"), seen); err != nil {
						t.Error(err)
					}
				}
			}
		})
	}
}

// openShop brings the mesh up, until the test ends.
func openShop(t *testing.T, bin string, uid int) *shop {
	t.Helper()
	s := &shop{bin: bin, home: openTemp(t), uid: uid}
	s.state = filepath.Join(s.home, "state")
	if err := os.Chown(s.home, uid, uid); err != nil {
		t.Fatal(err)
	}
	port := strconv.Itoa(ports.One())
	t.Cleanup(func() { _ = s.command(context.Background(), "down").Run() })
	out := s.lateen(t, "up", "--detach", "--publish", "80="+port, "--publish", "443="+strconv.Itoa(ports.One()), absolute("../samples/bookinfo"))
	page := regexp.MustCompile(`(?m)^try: (http://\S+/productpage)$`).FindStringSubmatch(out)
	if page == nil || !strings.Contains(page[1], ":"+port+"/") {
		t.Fatalf("lateen up does not say where the page is:\n%s", out)
	}
	s.page = page[1]
	return s
}

func (s *shop) command(ctx context.Context, verb string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, filepath.Join(s.bin, "lateen"), append([]string{verb, "--state", s.state}, args...)...)
	cmd.Env = append(os.Environ(), "PATH="+s.bin+":"+os.Getenv("PATH"), "HOME="+s.home)
	cmd.WaitDelay = 5 * time.Second
	if s.uid != os.Geteuid() {
		cmd.Dir = s.home
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(s.uid), Gid: uint32(s.uid)}}
	}
	return cmd
}

func (s *shop) lateen(t *testing.T, verb string, args ...string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	out, err := s.command(ctx, verb, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("lateen %s %s: %v\n%s", verb, strings.Join(args, " "), err, out)
	}
	return string(out)
}

// apply applies a rule of Bookinfo's.
func (s *shop) apply(t *testing.T, rule string) {
	t.Helper()
	s.lateen(t, "apply", "-f", absolute("../samples/bookinfo/networking/"+rule))
}

// await asks for the page until it shows one expression and not the other, on ten
// pages in a row.
func (s *shop) await(t *testing.T, shows, hides string) {
	t.Helper()
	client := &http.Client{Transport: &http.Transport{}}
	defer client.CloseIdleConnections()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	last := ""
	for row := 0; row < 10 && ctx.Err() == nil; row++ {
		r, err := http.NewRequestWithContext(ctx, http.MethodGet, s.page, http.NoBody)
		if err != nil {
			t.Fatal(err)
		}
		answer, err := client.Do(r)
		if err != nil {
			continue
		}
		body, _ := io.ReadAll(answer.Body)
		_ = answer.Body.Close()
		if last = string(body); !regexp.MustCompile(shows).MatchString(last) || regexp.MustCompile(hides).MatchString(last) {
			row = -1
		}
	}
	if ctx.Err() != nil {
		t.Fatalf("the page is not %s without %s, but\n%s", shows, hides, last)
	}
}
