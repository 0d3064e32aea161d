// Package browser looks at pages with a headless Chromium, where there is one.
//
//	b := browser.Open(t)                       // skips the test where there is none
//	b.Look(t, url)                             // what is seen
//	b.LookSignedIn(t, url+"/login", "jason")   // after a form was sent
//
// A browser needs no display and no network but the page's.
package browser

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"html"
	"image"
	"image/color"
	"image/png"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"syscall"
	"testing"
	"time"
)

// names are those under which distributions have it.
var names = []string{"chromium", "chromium-browser", "google-chrome", "google-chrome-stable"}

// patience bounds how long one look may take. A browser that hangs on a busy machine is
// started anew.
const (
	patience = 20 * time.Second
	shots    = 6
)

// Width and Height are those of what is seen, in pixels.
const (
	Width  = 900
	Height = 640
)

// A Browser is one program; every look is a new user's.
type Browser struct{ path string }

// Open finds the browser.
func Open(t testing.TB) Browser {
	t.Helper()
	for _, name := range names {
		if path, err := exec.LookPath(name); err == nil {
			return Browser{path}
		}
	}
	t.Skip("no Chromium on this machine: apt install chromium")
	return Browser{}
}

// Look opens a page and returns what is seen.
func (b Browser) Look(t testing.TB, page string) image.Image {
	t.Helper()
	return b.shoot(t, page)
}

// LookSignedIn sends a user's name to a form and returns the page that follows.
func (b Browser) LookSignedIn(t testing.TB, form, user string) image.Image {
	t.Helper()
	page := fmt.Sprintf(`<body onload="document.forms[0].submit()"><form method="post" action="%s"><input name="username" value="%s"></form>`,
		html.EscapeString(form), html.EscapeString(user))
	return b.shoot(t, "data:text/html,"+url.PathEscape(page))
}

// shoot takes pictures until two are the same: on a busy machine one may be half painted.
func (b Browser) shoot(t testing.TB, page string) image.Image {
	t.Helper()
	var failure error
	var before []byte
	for range shots {
		content, err := b.run(t.Context(), t.TempDir(), page)
		switch {
		case err != nil:
			t.Logf("%.500v", err)
			failure = err
		case bytes.Equal(content, before):
			seen, err := png.Decode(bytes.NewReader(content))
			if err != nil {
				t.Fatal(err)
			}
			return seen
		default:
			failure = errors.New("no two pictures are the same")
			before = content
		}
	}
	t.Fatal(failure)
	return nil
}

func (b Browser) run(ctx context.Context, dir, page string) ([]byte, error) {
	file := filepath.Join(dir, "seen.png")
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	// The sandbox needs rights that not every machine gives; the page is ours.
	cmd := exec.CommandContext(ctx, b.path, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--no-first-run",
		"--disable-background-networking", "--user-data-dir="+filepath.Join(dir, "user"),
		// The browser's own clock runs on while nothing is loaded: what follows a page is there,
		// and a page is painted whole.
		"--virtual-time-budget=3000", "--run-all-compositor-stages-before-draw",
		fmt.Sprintf("--window-size=%d,%d", Width, Height), "--screenshot="+file, page)
	cmd.Env = append(os.Environ(), "HOME="+dir) // a user without a home has one
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) } // its children too
	cmd.WaitDelay = 5 * time.Second
	out, err := cmd.CombinedOutput()
	if err != nil {
		return nil, fmt.Errorf("%s: %w\n%s", b.path, err, out)
	}
	content, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("%w\n%s", err, out)
	}
	return content, nil
}

// Count returns how many pixels have exactly a colour.
func Count(seen image.Image, c color.RGBA) (n int) {
	for y := seen.Bounds().Min.Y; y < seen.Bounds().Max.Y; y++ {
		for x := seen.Bounds().Min.X; x < seen.Bounds().Max.X; x++ {
			if color.RGBAModel.Convert(seen.At(x, y)) == c {
				n++
			}
		}
	}
	return n
}

// Save writes a picture with the 256 colours that it has most of, to be small.
func Save(file string, seen image.Image) error {
	counts := map[color.Color]int{}
	for y := seen.Bounds().Min.Y; y < seen.Bounds().Max.Y; y++ {
		for x := seen.Bounds().Min.X; x < seen.Bounds().Max.X; x++ {
			counts[color.RGBAModel.Convert(seen.At(x, y))]++
		}
	}
	colors := make(color.Palette, 0, len(counts))
	for c := range counts {
		colors = append(colors, c)
	}
	slices.SortFunc(colors, func(a, b color.Color) int {
		if d := counts[b] - counts[a]; d != 0 {
			return d
		}
		return bytes.Compare(bits(a), bits(b))
	})
	small := image.NewPaletted(seen.Bounds(), colors[:min(len(colors), 256)])
	for y := seen.Bounds().Min.Y; y < seen.Bounds().Max.Y; y++ {
		for x := seen.Bounds().Min.X; x < seen.Bounds().Max.X; x++ {
			small.Set(x, y, seen.At(x, y))
		}
	}
	var b bytes.Buffer
	if err := (&png.Encoder{CompressionLevel: png.BestCompression}).Encode(&b, small); err != nil {
		return err
	}
	return os.WriteFile(file, b.Bytes(), 0o644)
}

func bits(c color.Color) []byte {
	v := color.RGBAModel.Convert(c).(color.RGBA)
	return []byte{v.R, v.G, v.B}
}
