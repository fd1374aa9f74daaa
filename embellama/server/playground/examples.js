// Texts to begin with. Each set shows something else.

const LONG = Array.from(
  { length: 60 },
  (_, i) => `Clause ${i + 1}: the tenant keeps the rooms in good order and tells of every damage.`,
).join(" ");

export const EXAMPLES = [
  [
    "A warm woollen scarf for winter days",
    "Thick gloves that keep your hands from freezing",
    "Light linen trousers for the beach",
    "How do I bake sourdough bread at home?",
    "Recipe: a simple loaf with flour, water and salt",
    "Der Teig muss über Nacht ruhen",
    "The central bank raised interest rates again",
    "Inflation slowed for the third month in a row",
    "Shares fell after the company missed its forecast",
    "The cat sleeps on the sofa all day",
    "A kitten is napping on the couch",
    LONG,
  ],
  [
    "def add(a, b): return a + b",
    "function sum(x, y) { return x + y; }",
    "SELECT name FROM users WHERE age > 30",
    "Find everybody who is older than thirty",
    "Add two numbers and return the result",
    "git commit -m 'fix the build'",
    "Save the changes to version control",
    "The battery of my phone is empty after an hour",
    "My mobile does not hold its charge",
    "The screen stays black when I switch it on",
  ],
];
