"""Style and script of the report page: one column, readable on a phone, light and dark, and no request to any network."""

STYLE = """
:root { color-scheme: light dark; --paper: #ffffff; --ink: #1b1f24; --soft: #57606a; --line: #d0d7de; --card: #f6f8fa;
  --good: #1a7f37; --bad: #b42318; --link: #0550ae; }
@media (prefers-color-scheme: dark) { :root { --paper: #0d1117; --ink: #e6edf3; --soft: #a3adb8; --line: #30363d; --card: #161b22;
  --good: #56d364; --bad: #ff8f85; --link: #79b8ff; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1rem; max-width: 68rem; background: var(--paper); color: var(--ink);
  font: 1rem/1.55 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; overflow-wrap: anywhere; }
h1 { font-size: 1.5rem; line-height: 1.25; margin: .5rem 0; } h2 { font-size: 1.2rem; margin: 2.2rem 0 .6rem; }
h3 { font-size: 1rem; margin: 1.2rem 0 .4rem; }
p { max-width: 46rem; } .soft, figcaption, caption { color: var(--soft); font-size: .92rem; }
a { color: var(--link); } a:focus-visible, button:focus-visible, summary:focus-visible { outline: 3px solid var(--link); outline-offset: 2px; }
.skip { position: absolute; left: -99rem; } .skip:focus { left: 1rem; background: var(--paper); padding: .4rem; }
nav ul { display: flex; flex-wrap: wrap; gap: .2rem .9rem; list-style: none; padding: 0; margin: .8rem 0; }
.verdict { border-left: .35rem solid var(--good); background: var(--card); padding: .7rem 1rem; font-size: 1.08rem; }
.verdict.missed { border-color: var(--bad); } .verdict.idle { border-color: var(--soft); }
.cards { display: grid; grid-template-columns: repeat(auto-fit, minmax(9.5rem, 1fr)); gap: .7rem; margin: 1rem 0; padding: 0; }
.cards div { background: var(--card); padding: .6rem .8rem; } .cards dt { color: var(--soft); font-size: .88rem; }
.cards dd { margin: 0; font-size: 1.3rem; font-variant-numeric: tabular-nums; } .cards small { font-size: .85rem; color: var(--soft); }
figure { margin: .8rem 0 1.4rem; } @media (min-width: 640px) { .sideways { display: none; } } .wide { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: .92rem; }
caption { text-align: left; padding-bottom: .3rem; } th, td { padding: .25rem .7rem .25rem 0; text-align: right; white-space: nowrap; }
th:first-child, td:first-child { text-align: left; white-space: normal; min-width: 9rem; } td.words, th.words { text-align: left; }
td.said { white-space: normal; min-width: 13rem; vertical-align: top; }
thead th { border-bottom: 2px solid var(--line); } tbody tr + tr > * { border-top: 1px solid var(--line); }
code, pre { font: .88rem ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; }
pre { background: var(--card); padding: .7rem; overflow-x: auto; white-space: pre-wrap; }
button { font: inherit; color: var(--ink); background: var(--card); border: 1px solid var(--soft); border-radius: .3rem; padding: .15rem .6rem; }
summary { cursor: pointer; color: var(--link); } .good { color: var(--good); } .bad { color: var(--bad); }
@media print { nav, button { display: none; } details > * { display: block; } }
"""

SCRIPT = """
(function () {
  var dark = window.matchMedia('(prefers-color-scheme: dark)');
  function colour(name) { return getComputedStyle(document.documentElement).getPropertyValue(name).trim(); }
  function theme() {
    document.querySelectorAll('.plotly-graph-div').forEach(function (drawn) {
      var update = { 'font.color': colour('--ink'), 'hoverlabel.bgcolor': colour('--card'), 'hoverlabel.font.color': colour('--ink') };
      Object.keys(drawn.layout || {}).forEach(function (key) {
        if (/^[xy]axis[0-9]*$/.test(key)) {
          ['gridcolor', 'linecolor', 'zerolinecolor'].forEach(function (part) { update[key + '.' + part] = colour('--line'); });
        }
      });
      (drawn.layout.annotations || []).forEach(function (_, place) { update['annotations[' + place + '].font.color'] = colour('--ink'); });
      window.Plotly.relayout(drawn, update);
    });
  }
  function wrapped(words, room) {
    return words.split(' ').reduce(function (lines, word) {
      var last = lines[lines.length - 1];
      if (last && (last + ' ' + word).length > room) { lines.push(word); } else { lines[lines.length - 1] = last ? last + ' ' + word : word; }
      return lines;
    }, ['']).join('<br>');
  }
  function narrow() {
    if (window.innerWidth >= 640) { return; }
    document.querySelectorAll('.plotly-graph-div').forEach(function (drawn) {
      var below = -80 / Math.max(drawn.layout.height - 110, 60), update = {};
      if (!drawn.closest('[style*=min-width]')) {
        update = { 'legend.orientation': 'h', 'legend.x': 0, 'legend.y': below, 'legend.yanchor': 'top', 'legend.font.size': 11 };
      }
      Object.keys(drawn.layout || {}).forEach(function (key) {
        var title = /^[xy]axis[0-9]*$/.test(key) && drawn.layout[key].title;
        if (!title || !title.text) { return; }
        var length = drawn._fullLayout[key]._length;
        if (title.text.length * 9 < length) { return; }
        update[key + '.title.text'] = wrapped(title.text, Math.floor(length / 6.2));
        update[key + '.title.font.size'] = 11;
      });
      window.Plotly.relayout(drawn, update);
    });
  }
  function show(plan) {
    var row = document.getElementById('plan-' + plan);
    if (!row) { return; }
    document.getElementById('command').textContent = row.dataset.command;
    document.getElementById('picked').textContent = 'Plan ' + plan + ':';
  }
  function ready() {
    theme();
    narrow();
    dark.addEventListener('change', theme);
    var front = document.getElementById('figure-front');
    if (front && front.on) { front.on('plotly_click', function (event) { show(String(event.points[0].customdata)); }); }
    document.querySelectorAll('button[data-plan]').forEach(function (button) {
      button.addEventListener('click', function () { show(button.dataset.plan); document.getElementById('command').focus(); });
    });
  }
  if (document.readyState === 'complete') { ready(); } else { window.addEventListener('load', ready); }
})();
"""
