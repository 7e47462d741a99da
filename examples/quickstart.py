# %% [markdown]
# # From a run to adapters
# Run this in the root of the repository after `dvc repro`: `python examples/quickstart.py`.

# %% Pack what the run trained into one folder; it works anywhere, without DVC.
from pathlib import Path

from condpdiff import Generator
from condpdiff.packed.pack import pack

pack(Path("data"), Path("generator"))
generator = Generator.from_pretrained("generator")
print("knows:", ", ".join(generator.tasks))

# %% Four LoRAs for a task that it knows, as PEFT adapters.
loras = generator.generate(task=generator.tasks[0], samples=4, seed=0)
for number, lora in enumerate(loras):
    lora.save_pretrained(f"adapters/{number}")

# %% One for a task in words. Its head is that of the nearest task that was trained on.
lora = generator.generate(description="Is this review friendly?", examples=[("I loved it", "yes")])[0]
print("its head is that of", lora.task)

# %% PEFT loads an adapter into the base model.
from peft import PeftModel  # noqa: E402
from transformers import AutoModelForSequenceClassification, AutoTokenizer  # noqa: E402

base = AutoModelForSequenceClassification.from_pretrained("data/base", num_labels=len(loras[0].labels or ["value"]))
model = PeftModel.from_pretrained(base, "adapters/0").eval()
tokenizer = AutoTokenizer.from_pretrained("data/base")
print(model(**tokenizer("I laughed all evening.", return_tensors="pt")).logits.softmax(-1))
