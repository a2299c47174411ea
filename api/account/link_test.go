package account_test

import (
	"io"
	"net/http"
	"regexp"
	"strings"
	"testing"

	"guichet/internal/id"
)

func TestAttack75GuessedLinkLooksLikeAUsedOne(t *testing.T) {
	w := newWorld(t)
	ask := func(method, secret string) (int, string) {
		r, err := http.NewRequestWithContext(t.Context(), method, w.url+"/link/"+secret, http.NoBody)
		must(t, err)
		r.Header.Set("Sec-Fetch-Site", "same-origin")
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		resp, err := http.DefaultClient.Do(r)
		must(t, err)
		defer resp.Body.Close()
		body, err := io.ReadAll(resp.Body)
		must(t, err)
		return resp.StatusCode, regexp.MustCompile(`lang=[a-z]*"`).ReplaceAllString(string(body), "")
	}
	for _, method := range []string{http.MethodGet, http.MethodPost} {
		_, guessed := ask(method, id.Secret())
		for _, secret := range []string{"short", strings.Repeat("A", 43), strings.Repeat("A", 2000)} {
			if status, body := ask(method, secret); status != http.StatusNotFound || body != guessed {
				t.Errorf("%s %.10s…: %d, another page than for a guessed one", method, secret, status)
			}
		}
	}
}
