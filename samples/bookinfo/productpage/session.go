package productpage

import (
	"encoding/base64"
	"net/http"
	"net/url"
	"strings"
	"unicode"
	"unicode/utf8"
)

// cookie holds who has signed in: his name in base64. All instances read it, so none
// has to remember him. There is nothing to forge: anybody may sign in as anybody.
const cookie = "session"

// Bounds of what browsers send, in bytes.
const (
	maxName = 64
	maxForm = 8 << 10
)

func login(w http.ResponseWriter, r *http.Request) {
	r.Body = http.MaxBytesReader(w, r.Body, maxForm)
	name := strings.TrimSpace(r.FormValue("username"))
	if name != "" && !valid(name) {
		http.Error(w, "a user name has up to 64 bytes of printable text", http.StatusBadRequest)
		return
	}
	remember(w, name)
	back(w, r)
}

func logout(w http.ResponseWriter, r *http.Request) {
	remember(w, "")
	back(w, r)
}

// remember makes the browser name the user from now on, or nobody.
func remember(w http.ResponseWriter, name string) {
	c := http.Cookie{Name: cookie, Path: "/", HttpOnly: true, SameSite: http.SameSiteLaxMode} //nolint:gosec // plain HTTP is how the sample is looked at
	if name == "" {
		c.MaxAge = -1
	} else {
		c.Value = base64.RawURLEncoding.EncodeToString([]byte(name))
	}
	http.SetCookie(w, &c)
}

// back sends the browser to the page of ours that it came from.
func back(w http.ResponseWriter, r *http.Request) {
	from, err := url.Parse(r.Referer())
	if err != nil || from.Host != r.Host || from.Scheme != "http" && from.Scheme != "https" {
		from = &url.URL{Path: "/productpage"}
	}
	http.Redirect(w, r, from.String(), http.StatusFound) //nolint:gosec // its host is ours
}

// user is who has signed in.
func user(r *http.Request) (name string, ok bool) {
	c, err := r.Cookie(cookie)
	if err != nil {
		return "", false
	}
	return parse(c.Value)
}

// parse reads the value of the cookie.
func parse(value string) (name string, ok bool) {
	if len(value) > base64.RawURLEncoding.EncodedLen(maxName) {
		return "", false
	}
	text, err := base64.RawURLEncoding.DecodeString(value)
	if err != nil || !valid(string(text)) {
		return "", false
	}
	return string(text), true
}

// valid says whether a name may stand in a header.
func valid(name string) bool {
	return name != "" && len(name) <= maxName && utf8.ValidString(name) && strings.TrimSpace(name) == name &&
		!strings.ContainsFunc(name, func(r rune) bool { return !unicode.IsPrint(r) })
}
