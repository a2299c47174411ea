package main

import (
	"bytes"
	"fmt"
	"math"
	"time"
)

const (
	pictureWidth = 960
	plotLeft     = 84
	plotRight    = 944
	plotHeight   = 170
)

// picture draws rate and lag over time as SVG, with a mark for every checkpoint and
// every run of autovacuum.
func picture(title string, looks []look) []byte {
	var b bytes.Buffer
	end := looks[len(looks)-1].at
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d 540" font-family="sans-serif" font-size="13" role="img" aria-labelledby="t d">`+"\n", pictureWidth)
	fmt.Fprintf(&b, "<title id=\"t\">%s</title>\n", title)
	rates, lags := make([]float64, len(looks)), make([]float64, len(looks))
	var most, total float64
	for i, n := range looks {
		rates[i], lags[i] = n.rate, float64(n.lag.Milliseconds())
		total += n.rate
		most = max(most, lags[i])
	}
	first, last := looks[0], looks[len(looks)-1]
	fmt.Fprintf(&b, "<desc id=\"d\">%.0f entries a second on average; the accounts at most %.0f ms behind; %d checkpoints, %d runs of autovacuum.</desc>\n",
		total/float64(len(looks)), most, last.checkpoints-first.checkpoints, last.vacuums-first.vacuums)
	fmt.Fprintf(&b, `<rect width="%d" height="540" fill="#fff"/>`+"\n", pictureWidth)
	fmt.Fprintf(&b, `<text x="%d" y="24" font-size="16" font-weight="bold">%s</text>`+"\n", plotLeft, title)
	plot(&b, 50, "entries a second", "#0b5fff", end, looks, smooth(rates))
	plot(&b, 280, "lag of the accounts, ms", "#b3261e", end, looks, lags)
	marks(&b, end, looks)
	fmt.Fprintf(&b, "</svg>\n")
	return b.Bytes()
}

// smooth averages over two seconds: a look is too short for batches.
func smooth(v []float64) []float64 {
	const width = 8
	out := make([]float64, len(v))
	for i := range v {
		from := max(0, i-width+1)
		for _, x := range v[from : i+1] {
			out[i] += x
		}
		out[i] /= float64(i + 1 - from)
	}
	return out
}

func across(at, end time.Duration) float64 {
	return plotLeft + (plotRight-plotLeft)*at.Seconds()/end.Seconds()
}

func plot(b *bytes.Buffer, top float64, name, colour string, end time.Duration, looks []look, v []float64) {
	most := 1.0
	for _, x := range v {
		most = max(most, x)
	}
	step := round(most / 4)
	scale := math.Ceil(most/step) * step
	y := func(x float64) float64 { return top + plotHeight*(1-x/scale) }
	for x := 0.0; x <= scale; x += step {
		fmt.Fprintf(b, `<path d="M%d %.1fH%d" stroke="#ddd"/><text x="%d" y="%.1f" text-anchor="end" fill="#444">%.0f</text>`+"\n",
			plotLeft, y(x), plotRight, plotLeft-8, y(x)+4, x)
	}
	fmt.Fprintf(b, `<text x="%d" y="%.1f" fill="%s" font-weight="bold">%s</text>`+"\n", plotLeft, top-8, colour, name)
	fmt.Fprintf(b, `<polyline fill="none" stroke="%s" stroke-width="1.2" points="`, colour)
	for i, x := range v {
		fmt.Fprintf(b, "%.1f,%.1f ", across(looks[i].at, end), y(x))
	}
	b.WriteString("\"/>\n")
}

// round is the nearest of 1, 2, 5, 10, … above x.
func round(x float64) float64 {
	p := math.Pow(10, math.Floor(math.Log10(x)))
	for _, f := range []float64{1, 2, 5} {
		if x <= f*p {
			return f * p
		}
	}
	return 10 * p
}

// marks draws the time axis, and below it what the database did.
func marks(b *bytes.Buffer, end time.Duration, looks []look) {
	const axis = 466
	step := time.Duration(round(end.Seconds()/10)) * time.Second
	for at := time.Duration(0); at <= end; at += max(step, time.Second) {
		fmt.Fprintf(b, `<text x="%.1f" y="%d" text-anchor="middle" fill="#444">%.0f s</text>`+"\n", across(at, end), axis, at.Seconds())
	}
	for i, kind := range []struct {
		name, colour string
		count        func(look) int64
	}{
		{"checkpoint", "#6a1b9a", func(n look) int64 { return n.checkpoints }},
		{"autovacuum", "#2e7d32", func(n look) int64 { return n.vacuums }},
	} {
		y := axis + 22 + 24*i
		fmt.Fprintf(b, `<text x="%d" y="%d" text-anchor="end" fill="%s">%s</text>`+"\n", plotLeft-8, y+4, kind.colour, kind.name)
		for j := 1; j < len(looks); j++ {
			if kind.count(looks[j]) > kind.count(looks[j-1]) {
				fmt.Fprintf(b, `<path d="M%.1f %dv14" stroke="%s" stroke-width="2"/>`+"\n", across(looks[j].at, end), y-8, kind.colour)
			}
		}
	}
}
