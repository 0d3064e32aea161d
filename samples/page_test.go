package samples_test

import (
	"image"
	"image/color"
	"testing"

	"github.com/lateen-mesh/lateen/test/browser"
)

// In a browser v1 has no stars, v2 nine black ones and v3 nine red ones; who has
// signed in is greeted in the corner where others are asked to.
func TestBookinfoInABrowser(t *testing.T) {
	if testing.Short() {
		t.Skip("a browser is slow to start")
	}
	b := browser.Open(t)
	red, black := color.RGBA{R: 255, A: 255}, color.RGBA{A: 255}
	corner := image.Rect(browser.Width/2, 0, browser.Width, 45)
	seen := map[string]image.Image{}
	for _, tt := range []struct {
		name, stars string
		look        func(t *testing.T, shop string) image.Image
		red, black  bool
	}{
		{"v1", "none", func(t *testing.T, shop string) image.Image { return b.Look(t, shop+"/productpage") }, false, false},
		{"v2", "black", func(t *testing.T, shop string) image.Image { return b.Look(t, shop+"/productpage") }, false, true},
		{"v3", "red", func(t *testing.T, shop string) image.Image { return b.Look(t, shop+"/productpage") }, true, false},
		{"jason", "black", func(t *testing.T, shop string) image.Image { return b.LookSignedIn(t, shop+"/login", "jason") }, false, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			page := tt.look(t, shop(t, "--stars", tt.stars))
			seen[tt.name] = page
			for _, c := range []struct {
				color color.RGBA
				want  bool
			}{{red, tt.red}, {black, tt.black}} {
				const nine = 9 * 60 // pixels, at least
				if n := browser.Count(page, c.color); c.want != (n > nine) || !c.want && n > 0 {
					t.Errorf("%d pixels are %v", n, c.color)
				}
			}
		})
	}
	if same(seen["v2"], seen["jason"], corner) {
		t.Error("nothing says that somebody has signed in")
	}
}

// same compares a part of two pictures; what is not there is not the same.
func same(a, b image.Image, part image.Rectangle) bool {
	if a == nil || b == nil {
		return false
	}
	for y := part.Min.Y; y < part.Max.Y; y++ {
		for x := part.Min.X; x < part.Max.X; x++ {
			if a.At(x, y) != b.At(x, y) {
				return false
			}
		}
	}
	return true
}
