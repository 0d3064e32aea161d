package httpbin

import (
	"net/http"
	"strings"
)

// logins are the paths that ask who comes.
func (a application) logins(mux *http.ServeMux) {
	mux.HandleFunc("GET /basic-auth/{user}/{password}", func(w http.ResponseWriter, r *http.Request) {
		user, password, ok := r.BasicAuth()
		if !ok || user != r.PathValue("user") || password != r.PathValue("password") {
			w.Header().Set("WWW-Authenticate", `Basic realm="Fake Realm"`)
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		answer := map[string]any{"authenticated": true, "user": user}
		if a.lists {
			answer["authorized"] = true
		}
		a.reply(w, answer)
	})
	mux.HandleFunc("GET /bearer", func(w http.ResponseWriter, r *http.Request) {
		token, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
		if !ok {
			w.Header().Set("WWW-Authenticate", "Bearer")
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		a.reply(w, map[string]any{"authenticated": true, "token": token})
	})
}
