package web

import (
	"math"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// TestContrast computes every pair of colours the style sheet puts on each other,
// in the light and the dark scheme (WCAG 2.2, success criteria 1.4.3 and 1.4.11).
func TestContrast(t *testing.T) {
	css, err := own.ReadFile("assets/guichet.css")
	if err != nil {
		t.Fatal(err)
	}
	light, rest, ok := strings.Cut(string(css), "@media (prefers-color-scheme: dark)")
	if !ok {
		t.Fatal("no dark scheme")
	}
	dark, _, _ := strings.Cut(rest, "/* ---- 2")
	schemes := map[string]map[string]string{"light": tokens(light), "dark": tokens(light)}
	for name, value := range tokens(dark) {
		schemes["dark"][name] = value
	}
	var text [][2]string
	for _, ground := range []string{"ground", "surface", "surface-2", "tint"} {
		for _, ink := range []string{"ink", "ink-2", "link"} {
			text = append(text, [2]string{ink, ground})
		}
	}
	for _, ground := range []string{"ground", "surface"} {
		text = append(text, [2]string{"link-visited", ground}, [2]string{"bad", ground}, [2]string{"good", ground})
	}
	for _, kind := range []string{"good", "warn", "bad", "info"} {
		text = append(text, [2]string{kind, kind + "-tint"}, [2]string{"ink", kind + "-tint"}, [2]string{"link", kind + "-tint"}, [2]string{"ink-2", kind + "-tint"})
	}
	text = append(text, [2]string{"on-brand", "brand"}, [2]string{"on-brand", "brand-2"}, [2]string{"on-brand-2", "brand"},
		[2]string{"on-action", "action"}, [2]string{"on-action", "action-hover"}, [2]string{"surface", "bad"})
	parts := [][2]string{
		{"line-strong", "surface"},
		{"line-strong", "ground"},
		{"action", "surface"},
		{"action", "ground"},
		{"focus", "surface"},
		{"focus", "ground"},
		{"verdigris", "brand"},
		{"verdigris", "brand-2"},
		{"bad", "surface"},
	}
	for scheme, colours := range schemes {
		for limit, pairs := range map[float64][][2]string{4.5: text, 3: parts} {
			for _, p := range pairs {
				if colours[p[0]] == "" || colours[p[1]] == "" {
					t.Errorf("no colour %s or %s", p[0], p[1])
					continue
				}
				if got := contrast(t, colours[p[0]], colours[p[1]]); got < limit {
					t.Errorf("%s: %s on %s is %.2f, want at least %.1f", scheme, p[0], p[1], got, limit)
				}
			}
		}
	}
}

func tokens(css string) map[string]string {
	found := map[string]string{}
	for _, m := range regexp.MustCompile(`--([a-z0-9-]+):\s*(#[0-9a-f]{6});`).FindAllStringSubmatch(css, -1) {
		found[m[1]] = m[2]
	}
	return found
}

func contrast(t *testing.T, a, b string) float64 {
	la, lb := luminance(t, a), luminance(t, b)
	return (math.Max(la, lb) + 0.05) / (math.Min(la, lb) + 0.05)
}

func luminance(t *testing.T, hex string) float64 {
	var sum float64
	for i, weight := range []float64{0.2126, 0.7152, 0.0722} {
		n, err := strconv.ParseUint(hex[1+2*i:3+2*i], 16, 8)
		if err != nil {
			t.Fatalf("colour %s: %v", hex, err)
		}
		c := float64(n) / 255
		if c <= 0.04045 {
			c /= 12.92
		} else {
			c = math.Pow((c+0.055)/1.055, 2.4)
		}
		sum += weight * c
	}
	return sum
}
